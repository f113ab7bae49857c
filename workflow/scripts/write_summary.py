"""Put products, scores and figures on one page (rule `write_summary`)."""

from finescale import job, report

with job.running(snakemake) as work:
    report.write_summary(work, **work.inputs, **work.spec)
