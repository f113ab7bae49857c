"""Stage `coarsen` (docs/stages/coarsen.md).

INPUTS   reference, weights
OUTPUTS  one committed store: coarse grid, full_time
"""


rule coarsen:
    """Average the reference onto the grid of one GCM, conserving area means."""
    input:
        unpack(committed("coarsen")),
    output:
        store=sentinel("coarsen"),
    params:
        spec=spec("coarsen"),
    threads: cores("coarsen")
    resources:
        mem_mb=memory("coarsen"),
        runtime=runtime("coarsen"),
        disk_mb=disk("coarsen"),
    log:
        "logs/coarsen/{artefact}.log",
    benchmark:
        "benchmarks/coarsen/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/coarsen.py"
