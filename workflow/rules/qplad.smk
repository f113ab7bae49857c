"""Stage `qplad` (docs/stages/qplad.md).

INPUTS   adjusted, coarse and fine reference, fine climatology, weights; for tasmin the product of tasmax
OUTPUTS  one committed daily product: fine grid, tiles
"""


rule qplad:
    """Downscale by quantile-preserving localised analogs."""
    input:
        unpack(committed("qplad")),
    output:
        store=sentinel("qplad"),
    params:
        spec=spec("qplad"),
    threads: cores("qplad")
    resources:
        mem_mb=memory("qplad"),
        runtime=runtime("qplad"),
        disk_mb=disk("qplad"),
    log:
        "logs/qplad/{artefact}.log",
    benchmark:
        "benchmarks/qplad/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/qplad.py"
