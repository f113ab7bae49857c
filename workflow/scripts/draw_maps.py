"""Draw one simulated variable: coarse to fine in the present, and its change (rule `draw_maps`)."""

from finescale import job, report

with job.running(snakemake) as work:
    report.draw_maps(work, **work.inputs, **work.spec)
