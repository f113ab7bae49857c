"""Stage `analogs` (docs/stages/analogs.md).

INPUTS   ref (coarsen) and adjusted (adjust) of each variable that is chosen with the others
OUTPUTS  one committed store: the analogs of each day in each region, and their weights
"""


rule analogs:
    """Find the reference days that look most like each day of the model."""
    input:
        unpack(committed("analogs")),
    output:
        store=sentinel("analogs"),
    params:
        spec=spec("analogs"),
    threads: cores("analogs")
    resources:
        mem_mb=memory("analogs"),
        runtime=runtime("analogs"),
        disk_mb=disk("analogs"),
    log:
        "logs/analogs/{artefact}.log",
    benchmark:
        "benchmarks/analogs/{artefact}.tsv"
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/analogs.py"
