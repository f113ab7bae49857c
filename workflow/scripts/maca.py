"""Downscale by multivariate adaptive constructed analogs (rule `maca`)."""

from finescale import job, maca

with job.running(snakemake) as work:
    maca.run(work, **work.inputs, **work.spec)
