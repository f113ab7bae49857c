"""Stage `bcsd` (docs/stages/bcsd.md).

INPUTS   adjusted, coarse and fine climatology, weights; for tasmin the product of tasmax
OUTPUTS  one committed daily product: fine grid, tiles
"""


rule bcsd:
    """Downscale by bias correction and spatial disaggregation."""
    input:
        unpack(committed("bcsd")),
    output:
        store=sentinel("bcsd"),
    params:
        spec=spec("bcsd"),
    threads: cores("bcsd")
    resources:
        mem_mb=memory("bcsd"),
        runtime=runtime("bcsd"),
        disk_mb=disk("bcsd"),
    log:
        "logs/bcsd/{artefact}.log",
    benchmark:
        "benchmarks/bcsd/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/bcsd.py"
