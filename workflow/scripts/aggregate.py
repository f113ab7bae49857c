"""Average a daily product over months or years (rule `aggregate`)."""

from finescale import aggregate, job

with job.running(snakemake) as work:
    aggregate.run(work, **work.inputs, **work.spec)
