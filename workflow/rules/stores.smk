"""Verification of all stores of the config (docs/running/stores.md).

INPUTS   every committed store of the plan
OUTPUTS  results/<name>/verified.json, where the config makes it a gate of `all`
"""


rule verify_stores:
    """Verify every store once it is made: a gate of `all` if the config says so."""
    input:
        stores=stores(),
    output:
        verified=results("verified.json"),
    params:
        spec=report_spec("verify_stores"),
    resources:
        mem_mb=megabytes(700),
    log:
        results("logs/verify_stores.log"),
    benchmark:
        results("benchmarks/verify_stores.tsv")
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/verify_stores.py"


rule verify:
    """Verify what is committed, now: without input and output it runs whenever it is asked for."""
    params:
        spec=report_spec("verify"),
    resources:
        mem_mb=megabytes(700),
    log:
        results("logs/verify.log"),
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/verify.py"
