"""Find the reference days that look most like each day of the model (rule `analogs`)."""

from finescale import analogs, job

with job.running(snakemake) as work:
    analogs.run(work, **work.inputs, **work.spec)
