"""Finescale: from CMIP6 simulations and a reference to verified daily downscaled stores.

A table of contents, in the order of the pipeline. `snakemake -n` says what will run and why;
the stores that a config needs, and their names, are planned in `finescale.plan`.
"""

from snakemake.utils import min_version

min_version("9.20")

# One config file is the whole config: Snakemake would merge this one under any other.
if not workflow.configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/reference.smk"
include: "workflow/rules/simulation.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/coarsen.smk"
include: "workflow/rules/climatology.smk"
include: "workflow/rules/adjust.smk"
include: "workflow/rules/bcsd.smk"
include: "workflow/rules/qplad.smk"
include: "workflow/rules/analogs.smk"
include: "workflow/rules/maca.smk"
include: "workflow/rules/gard.smk"
include: "workflow/rules/interpolate.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/stores.smk"


localrules:
    all,


rule all:
    """Everything the config asks for: products, index, scorecard, figures; gates passed."""
    default_target: True
    input:
        products=products(),
        index=results("index.json"),
        scores=results("scores.csv"),
        gates=results("gates.json"),
        summary=results("summary.html"),
        figures=figures(),
        verified=verified(),


onstart:
    print(opening_words(), file=sys.stderr)


onsuccess:
    print(closing_words())


onerror:
    print(failing_words(log))
