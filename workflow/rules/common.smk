"""What all rules share: the library on the path, the plan, and lookups in it.

INPUTS   the config file and its inputs lock
OUTPUTS  PLAN, and functions that turn a wildcard into paths, parameters and resources
"""

import sys

LIBRARY = str(workflow.current_basedir.join("../lib").get_path_or_uri(secret_free=False))
sys.path.insert(0, LIBRARY)

from finescale import estimate, failures, start, summary

RUN = start.prepare(config, workflow, library=LIBRARY)
CONFIG, PLAN = RUN.config, RUN.plan
FIGURES = summary.figure_groups(PLAN)
# What a profile says that the Snakemakes inside each of its jobs take [MB].
NESTED_MB = workflow.resource_settings._parsed_default_resources.get("snakemake_mb").value or 0
# Sources, logs and compiled functions of a job without a shared file system [MB].
POD_MB = 1000
config.update(lock=RUN.lock, stores=CONFIG.stores)
if workflow.is_main_process:
    failures.heed(config)


wildcard_constraints:
    artefact=r"[A-Za-z0-9._-]+-[0-9a-f]{16}",


def _stored(path):
    """Return a sentinel below the root of stores, a plain path or an object that stays remote."""
    full = f"{CONFIG.stores}/{path}"
    return storage(full, retrieve=False) if "://" in full else full


def sentinel(stage):
    """Return the output of a stage: the sentinel of any of its stores."""
    return _stored(f"{stage}/{{artefact}}.zarr/.zmetadata")


def committed(stage):
    """Return an input function: role -> sentinel of each store that an artefact is made of.

    Its time says nothing, the identity in its path does. Only within a stage does time count:
    that is how `-R bcsd` reaches a tasmin that is made of a tasmax.
    """

    def parents(wildcards):
        artefact = PLAN.artefacts[stage, wildcards.artefact]
        return {
            role: _stored(a.path) if a.stage == stage else ancient(_stored(a.path))
            for role, a in artefact.inputs.items()
        }

    return parents


def spec(stage):
    """Return a params function: what the identity of an artefact covers."""

    def parameters(wildcards):
        return PLAN.artefacts[stage, wildcards.artefact].spec

    return parameters


def cores(stage):
    """Return the threads of a stage: a function only where its artefacts differ in them."""
    numbers = {artefact.threads for artefact in PLAN.stage(stage)} or {1}
    if len(numbers) == 1:
        return numbers.pop()

    def threads(wildcards):
        return PLAN.artefacts[stage, wildcards.artefact].threads

    return threads


def memory(stage):
    """Return a resources function: predicted memory, more after each failed attempt."""

    def mem_mb(wildcards, attempt):
        return _grown(PLAN.artefacts[stage, wildcards.artefact].mem_mb, attempt)

    return mem_mb


def megabytes(need):
    """Return a resources function: memory that no plan tells, more after each failed attempt."""

    def mem_mb(wildcards, attempt):
        return _grown(need, attempt)

    return mem_mb


def _grown(need, attempt):
    return NESTED_MB + round(need * (1 + 0.5 * (attempt - 1)))


def runtime(stage):
    """Return a resources function: minutes that a job may take, twice as many after a failure."""

    def minutes(wildcards, attempt):
        return estimate.minutes(PLAN.artefacts[stage, wildcards.artefact], attempt)

    return minutes


def disk(stage):
    """Return a resources function: what a job writes, beside logs if that goes to a bucket."""

    def disk_mb(wildcards):
        own = estimate.disk_mb(PLAN.artefacts[stage, wildcards.artefact])
        return POD_MB if "://" in CONFIG.stores else own

    return disk_mb


def products():
    """Return the sentinels of all products."""
    return [_stored(product.artefact.path) for product in PLAN.products]


def stores():
    """Return the sentinels of all stores, whose times say nothing."""
    return [ancient(_stored(artefact.path)) for artefact in PLAN.artefacts.values()]


def verified():
    """Return the result of verification if the config makes it a gate."""
    return [results("verified.json")] if CONFIG.verify.gate else []


def evaluations():
    """Return the sentinels of all evaluations."""
    return [_stored(artefact.path) for artefact in PLAN.evaluations]


def results(name):
    """Return the path of a result file of this config."""
    return f"results/{CONFIG.name}/{name}"


def figures():
    """Return the figures of this config, one for each simulated variable."""
    return [results(f"figures/{name}.png") for name in FIGURES]


def figure_inputs(wildcards):
    """Return what a figure is drawn from: evaluations, their products, reference, simulation."""
    evaluations = FIGURES[wildcards.figure]
    first = evaluations[0].inputs
    return {
        "evaluations": [ancient(_stored(e.path)) for e in evaluations],
        "products": [ancient(_stored(e.inputs["product"].path)) for e in evaluations],
        "reference": ancient(_stored(first["reference"].path)),
        "simulation": ancient(_stored(first["simulation"].path)),
    }


def figure_spec(wildcards):
    """Return the identities of a figure's inputs."""
    return summary.figure_spec(FIGURES[wildcards.figure])


def report_spec(rule):
    """Return what a rule of the report takes beside its inputs."""
    return summary.report_spec(rule, CONFIG, PLAN)


def opening_words():
    """Return what the run will take, for its begin; what failed in the last one is forgotten."""
    failures.forget(config)
    return summary.opening_words(RUN)


def closing_words():
    """Return where the results lie, for the end of a run."""
    return summary.closing_words(RUN)


def failing_words(log):
    """Return what failed, and what to do about it."""
    return summary.failing_words(config, workflow.scheduler, log)
