"""Stage `simulation` (docs/stages/simulation.md).

INPUTS   the dataset named in the config (through the inputs lock), or tasmax and tasmin for dtr
OUTPUTS  one committed store: coarse grid, full_time
"""


rule simulation:
    """Put one experiment of a GCM in Finescale's form, cut to what a domain needs."""
    input:
        unpack(committed("simulation")),
    output:
        store=sentinel("simulation"),
    params:
        spec=spec("simulation"),
    threads: cores("simulation")
    resources:
        mem_mb=memory("simulation"),
        runtime=runtime("simulation"),
        disk_mb=disk("simulation"),
    log:
        "logs/simulation/{artefact}.log",
    benchmark:
        "benchmarks/simulation/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/simulation.py"
