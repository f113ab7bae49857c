"""Stage `maca` (docs/stages/maca.md).

INPUTS   analogs and adjusted of the product and of training, ref (coarsen), reference, climatology, weights;
         for tasmin the product of tasmax
OUTPUTS  one committed daily product: fine grid, tiles
"""


rule maca:
    """Downscale by multivariate adaptive constructed analogs."""
    input:
        unpack(committed("maca")),
    output:
        store=sentinel("maca"),
    params:
        spec=spec("maca"),
    threads: cores("maca")
    resources:
        mem_mb=memory("maca"),
        runtime=runtime("maca"),
        disk_mb=disk("maca"),
    log:
        "logs/maca/{artefact}.log",
    benchmark:
        "benchmarks/maca/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/maca.py"
