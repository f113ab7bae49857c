"""Look for damage in every store of the config (rule `verify`)."""

from finescale import job, verify

with job.running(snakemake) as work:
    verify.run(work, **work.inputs, **work.spec)
