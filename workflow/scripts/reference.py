"""Put a variable of the observations in Finescale's form, cut to a domain (rule `reference`)."""

from finescale import job, reference

with job.running(snakemake) as work:
    reference.run(work, **work.inputs, **work.spec)
