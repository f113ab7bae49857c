"""Score a product and the interpolated raw GCM against the reference (rule `evaluate`)."""

from finescale import evaluate, job

with job.running(snakemake) as work:
    evaluate.run(work, **work.inputs, **work.spec)
