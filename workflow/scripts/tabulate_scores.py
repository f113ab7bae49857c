"""Average the scores of all products over area, and judge every gate (rule `tabulate_scores`)."""

from finescale import job, report

with job.running(snakemake) as work:
    report.tabulate_scores(work, **work.inputs, **work.spec)
