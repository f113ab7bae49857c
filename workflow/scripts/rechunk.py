"""Write the fine reference again, in chunks of whole series (rule `rechunk`)."""

from finescale import job, rechunk

with job.running(snakemake) as work:
    rechunk.run(work, **work.inputs, **work.spec)
