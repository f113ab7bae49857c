"""Downscale by regression on large-scale predictors or their analogs (rule `gard`)."""

from finescale import gard, job

with job.running(snakemake) as work:
    gard.run(work, **work.inputs, **work.spec)
