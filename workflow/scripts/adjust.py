"""Give a GCM the distribution of the coarsened reference, on the GCM's grid (rule `adjust`)."""

from finescale import adjust, job

with job.running(snakemake) as work:
    adjust.run(work, **work.inputs, **work.spec)
