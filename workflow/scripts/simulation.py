"""Put one experiment of a GCM in Finescale's form (rule `simulation`)."""

from finescale import job, simulation

with job.running(snakemake) as work:
    simulation.run(work, **work.inputs, **work.spec)
