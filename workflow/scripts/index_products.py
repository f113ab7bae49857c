"""List every committed product of the config (rule `index_products`)."""

from finescale import job, report

with job.running(snakemake) as work:
    report.index_products(work, **work.inputs, **work.spec)
