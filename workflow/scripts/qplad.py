"""Downscale by quantile-preserving localised analogs (rule `qplad`)."""

from finescale import job, qplad

with job.running(snakemake) as work:
    qplad.run(work, **work.inputs, **work.spec)
