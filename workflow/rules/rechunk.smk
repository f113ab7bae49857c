"""Stage `rechunk` (docs/stages/rechunk.md).

INPUTS   reference
OUTPUTS  one committed store: fine grid, full_time; scratch beside it while the job runs
"""


rule rechunk:
    """Write the fine reference again, in chunks of whole series."""
    input:
        unpack(committed("rechunk")),
    output:
        store=sentinel("rechunk"),
    params:
        spec=spec("rechunk"),
    threads: cores("rechunk")
    resources:
        mem_mb=memory("rechunk"),
    log:
        "logs/rechunk/{artefact}.log",
    benchmark:
        "benchmarks/rechunk/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/rechunk.py"
