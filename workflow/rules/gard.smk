"""Stage `gard` (docs/stages/gard.md).

INPUTS   reference, its climatology, weights, predictors to train with and to apply; for tasmin the
         product of tasmax
OUTPUTS  one committed daily product: fine grid, tiles
"""


rule gard:
    """Downscale by regression on large-scale predictors or their analogs."""
    input:
        unpack(committed("gard")),
    output:
        store=sentinel("gard"),
    params:
        spec=spec("gard"),
    threads: cores("gard")
    resources:
        mem_mb=memory("gard"),
        runtime=runtime("gard"),
        disk_mb=disk("gard"),
    log:
        "logs/gard/{artefact}.log",
    benchmark:
        "benchmarks/gard/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/gard.py"
