"""Stage `evaluate` (docs/stages/evaluate.md).

INPUTS   product, reference, simulation, weights; for scenarios both historical
OUTPUTS  one committed store of scores per cell
"""


rule evaluate:
    """Score a product and the interpolated raw GCM against the reference."""
    input:
        unpack(committed("evaluate")),
    output:
        store=sentinel("evaluate"),
    params:
        spec=spec("evaluate"),
    threads: cores("evaluate")
    resources:
        mem_mb=memory("evaluate"),
        runtime=runtime("evaluate"),
        disk_mb=disk("evaluate"),
    log:
        "logs/evaluate/{artefact}.log",
    benchmark:
        "benchmarks/evaluate/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/evaluate.py"
