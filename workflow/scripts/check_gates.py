"""Fail the run if a gate is shut that the config does not waive (rule `check_gates`)."""

from finescale import job, report

with job.running(snakemake) as work:
    report.check_gates(work, **work.inputs, **work.spec)
