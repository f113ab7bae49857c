"""Stage `adjust` (docs/stages/adjust.md).

INPUTS   ref (coarsen), hist and scen (simulation)
OUTPUTS  one committed store: coarse grid, full_time
"""


rule adjust:
    """Give a GCM the distribution of the coarsened reference, on the GCM's grid."""
    input:
        unpack(committed("adjust")),
    output:
        store=sentinel("adjust"),
    params:
        spec=spec("adjust"),
    threads: cores("adjust")
    resources:
        mem_mb=memory("adjust"),
        runtime=runtime("adjust"),
        disk_mb=disk("adjust"),
    log:
        "logs/adjust/{artefact}.log",
    benchmark:
        "benchmarks/adjust/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/adjust.py"
