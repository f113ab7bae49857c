"""Fit the smooth day-of-year cycle of the reference, fine or coarse (rule `climatology`)."""

from finescale import climatology, job

with job.running(snakemake) as work:
    climatology.run(work, **work.inputs, **work.spec)
