"""Fail the run if a store is damaged (rule `verify_stores`)."""

from finescale import job, verify

with job.running(snakemake) as work:
    verify.run(work, **work.inputs, **work.spec)
