"""Stage `aggregate` (docs/stages/aggregate.md).

INPUTS   product
OUTPUTS  one committed store: fine grid
"""


rule aggregate:
    """Average a daily product over months or years."""
    input:
        unpack(committed("aggregate")),
    output:
        store=sentinel("aggregate"),
    params:
        spec=spec("aggregate"),
    threads: cores("aggregate")
    resources:
        mem_mb=memory("aggregate"),
        runtime=runtime("aggregate"),
        disk_mb=disk("aggregate"),
    log:
        "logs/aggregate/{artefact}.log",
    benchmark:
        "benchmarks/aggregate/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/aggregate.py"
