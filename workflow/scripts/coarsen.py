"""Average the reference onto the grid of one GCM, conserving area means (rule `coarsen`)."""

from finescale import coarsen, job

with job.running(snakemake) as work:
    coarsen.run(work, **work.inputs, **work.spec)
