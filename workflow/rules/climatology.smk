"""Stage `climatology` (docs/stages/climatology.md).

INPUTS   series: reference or coarsen
OUTPUTS  one committed store: 366 slots
"""


rule climatology:
    """Fit the smooth day-of-year cycle of the reference, fine or coarse."""
    input:
        unpack(committed("climatology")),
    output:
        store=sentinel("climatology"),
    params:
        spec=spec("climatology"),
    threads: cores("climatology")
    resources:
        mem_mb=memory("climatology"),
        runtime=runtime("climatology"),
        disk_mb=disk("climatology"),
    log:
        "logs/climatology/{artefact}.log",
    benchmark:
        "benchmarks/climatology/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/climatology.py"
