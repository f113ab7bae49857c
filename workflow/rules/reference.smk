"""Stage `reference` (docs/stages/reference.md).

INPUTS   the dataset named in the config (through the inputs lock), or tasmax and tasmin for dtr
OUTPUTS  one committed store: fine grid, tiles
"""


rule reference:
    """Put a variable of the observations in Finescale's form, cut to a domain."""
    input:
        unpack(committed("reference")),
    output:
        store=sentinel("reference"),
    params:
        spec=spec("reference"),
    threads: cores("reference")
    resources:
        mem_mb=memory("reference"),
        runtime=runtime("reference"),
        disk_mb=disk("reference"),
    log:
        "logs/reference/{artefact}.log",
    benchmark:
        "benchmarks/reference/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/reference.py"
