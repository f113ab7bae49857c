"""Stage `report`: what people look at (docs/stages/report.md).

INPUTS   committed products and evaluations
OUTPUTS  results/<name>/: index.json, scores.csv, verdicts.csv, gates.json, figures/, summary.html
"""


rule index_products:
    """List every committed product of the config."""
    input:
        products=products(),
    output:
        index=results("index.json"),
    params:
        spec=report_spec("index_products"),
    resources:
        mem_mb=megabytes(700),
    log:
        results("logs/index_products.log"),
    benchmark:
        results("benchmarks/index_products.tsv")
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/index_products.py"


rule tabulate_scores:
    """Average the scores of all products over area, and judge every gate."""
    input:
        evaluations=evaluations(),
    output:
        scores=report(results("scores.csv"), caption="../report/scores.rst", category="Scorecard"),
        verdicts=report(
            results("verdicts.csv"), caption="../report/gates.rst", category="Scorecard"
        ),
    params:
        spec=report_spec("tabulate_scores"),
    resources:
        mem_mb=megabytes(700),
    log:
        results("logs/tabulate_scores.log"),
    benchmark:
        results("benchmarks/tabulate_scores.tsv")
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/tabulate_scores.py"


rule check_gates:
    """Fail the run if a gate is shut that the config does not waive."""
    input:
        verdicts=results("verdicts.csv"),
    output:
        gates=results("gates.json"),
    resources:
        mem_mb=megabytes(700),
    log:
        results("logs/check_gates.log"),
    benchmark:
        results("benchmarks/check_gates.tsv")
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/check_gates.py"


rule draw_maps:
    """Draw one simulated variable: coarse to fine in the present, and its change."""
    input:
        unpack(figure_inputs),
    output:
        figure=report(
            results("figures/{figure}.png"),
            caption="../report/figure.rst",
            category="Present climate",
            labels={"figure": "{figure}"},
        ),
        change=report(
            results("figures/change/{figure}.png"),
            caption="../report/change.rst",
            category="Change",
            labels={"figure": "{figure}"},
        ),
    params:
        spec=figure_spec,
    resources:
        mem_mb=megabytes(1500),
    log:
        results("logs/draw_maps/{figure}.log"),
    benchmark:
        results("benchmarks/draw_maps/{figure}.tsv")
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/draw_maps.py"


rule write_summary:
    """Put products, scores and figures on one page."""
    input:
        index=results("index.json"),
        table=results("scores.csv"),
        verdicts=results("verdicts.csv"),
        pictures=figures(),
    output:
        summary=report(results("summary.html"), caption="../report/summary.rst", category="Summary"),
    params:
        spec=report_spec("write_summary"),
    resources:
        mem_mb=megabytes(700),
    log:
        results("logs/write_summary.log"),
    benchmark:
        results("benchmarks/write_summary.tsv")
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/write_summary.py"
