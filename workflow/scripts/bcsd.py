"""Downscale by bias correction and spatial disaggregation (rule `bcsd`)."""

from finescale import bcsd, job

with job.running(snakemake) as work:
    bcsd.run(work, **work.inputs, **work.spec)
