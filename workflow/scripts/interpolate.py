"""Downscale by bilinear interpolation of the raw GCM: the baseline (rule `interpolate`)."""

from finescale import interpolate, job

with job.running(snakemake) as work:
    interpolate.run(work, **work.inputs, **work.spec)
