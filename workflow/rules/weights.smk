"""Stage `weights` (docs/stages/weights.md).

INPUTS   none: both grids are parameters
OUTPUTS  one committed store: COO table
"""


rule weights:
    """Compute the sparse matrix of a pair of grids, in a process of its own."""
    input:
        unpack(committed("weights")),
    output:
        store=sentinel("weights"),
    params:
        spec=spec("weights"),
    threads: cores("weights")
    resources:
        mem_mb=memory("weights"),
        runtime=runtime("weights"),
        disk_mb=disk("weights"),
    log:
        "logs/weights/{artefact}.log",
    benchmark:
        "benchmarks/weights/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/weights.py"
