"""Compute the sparse matrix of a pair of grids, in a process of its own (rule `weights`)."""

from finescale import job, weights

with job.running(snakemake) as work:
    weights.run(work, **work.inputs, **work.spec)
