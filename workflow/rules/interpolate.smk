"""Stage `interpolate` (docs/stages/interpolate.md).

INPUTS   simulation, weights, climatology (for its mask)
OUTPUTS  one committed daily product: fine grid, tiles
"""


rule interpolate:
    """Downscale by bilinear interpolation of the raw GCM: the baseline."""
    input:
        unpack(committed("interpolate")),
    output:
        store=sentinel("interpolate"),
    params:
        spec=spec("interpolate"),
    threads: cores("interpolate")
    resources:
        mem_mb=memory("interpolate"),
        runtime=runtime("interpolate"),
        disk_mb=disk("interpolate"),
    log:
        "logs/interpolate/{artefact}.log",
    benchmark:
        "benchmarks/interpolate/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/interpolate.py"
