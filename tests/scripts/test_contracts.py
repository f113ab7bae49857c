"""The contract between every rule and its script, and the form both must have.

Rules are read as Snakemake's own parser compiles them (to decorated Python functions), without
running them; scripts and stage modules are read as syntax trees. The inputs and parameters of a
stage are those that the plans of the quickstart and of a world of all methods give its artefacts.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from inspect import Parameter, signature
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from configs import METHODS_WORLD
from snakemake.parser import parse

from finescale import start, summary
from finescale.identity import STAGE_VERSION
from finescale.variables import VARIABLES

ROOT = Path(__file__).parents[2]
COMMON = ROOT / "workflow" / "rules" / "common.smk"
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))
LIBRARY = ROOT / "workflow" / "lib" / "finescale"
ENVIRONMENT = "../../envs/finescale.yaml"
OF_A_STAGE = {"committed", "sentinel", "spec", "cores", "memory", "disk"}
ALWAYS = {"verify"}
"""Rules without output, input and benchmark: they run whenever they are asked for."""
THINKING = {
    *("FunctionDef", "AsyncFunctionDef", "ClassDef", "Lambda"),
    *("For", "While", "ListComp", "SetComp", "DictComp", "GeneratorExp"),
    *("If", "IfExp", "BoolOp", "Match", "Try", "BinOp", "JoinedStr"),
}


@dataclass(frozen=True)
class Rule:
    """A rule as written: each directive with the expressions behind it."""

    name: str
    file: str
    directives: dict[str, ast.Call]

    def names(self, directive: str) -> set[str]:
        """Return the names that a directive declares itself."""
        call = self.directives.get(directive)
        return {keyword.arg or "**" for keyword in call.keywords} if call else set()

    def unpacked(self, directive: str) -> str | None:
        """Return the expression whose names a directive unpacks, if it unpacks one."""
        call = self.directives.get(directive)
        if call and len(call.args) == 1 and isinstance(call.args[0], ast.Call):
            inner = call.args[0]
            if ast.unparse(inner.func) == "unpack":
                return ast.unparse(inner.args[0])
        return None

    def text(self, directive: str) -> str | None:
        """Return the one string that a directive holds, if it holds one."""
        call = self.directives.get(directive)
        if call and len(call.args) == 1 and isinstance(call.args[0], ast.Constant):
            return str(call.args[0].value)
        return None

    @property
    def is_local(self) -> bool:
        call = self.directives.get("localrule")
        return bool(call and ast.unparse(call.args[0]) == "True")


def python_of(text: str, file: str) -> ast.Module:
    """Return the Python that Snakemake makes of a Snakefile's text."""
    source = SimpleNamespace(get_path_or_uri=lambda secret_free: file)
    workflow = SimpleNamespace(sourcecache=SimpleNamespace(open=lambda path: StringIO(text)))
    return ast.parse(parse(source, workflow, {})[0])


def read_rules(text: str, file: str = "rules.smk") -> list[Rule]:
    """Return the rules of a Snakefile's text."""
    rules = []
    for node in ast.walk(python_of(text, file)):
        if isinstance(node, ast.FunctionDef):
            calls = {
                decorator.func.attr: decorator
                for decorator in node.decorator_list
                if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute)
            }
            if "rule" in calls:
                name = next(k.value for k in calls.pop("rule").keywords if k.arg == "name")
                rules.append(Rule(ast.literal_eval(name), file, calls))
    return rules


def faults_of_rule(rule: Rule) -> list[str]:
    """Return what a rule that runs a script lacks or should not have."""
    wanted = {"docstring", "output", "log", "conda", "script", "benchmark"}
    if rule.name in ALWAYS:
        wanted -= {"output", "benchmark"}
    if rule.is_local:
        wanted.remove("benchmark")
    faults = [f"no {name}" for name in sorted(wanted - rule.directives.keys())]
    for name in ("input", "output", "params"):
        call = rule.directives.get(name)
        if call and ("**" in rule.names(name) or (call.args and not rule.unpacked(name))):
            faults.append(f"unnamed {name}")
    if rule.text("conda") not in (None, ENVIRONMENT):
        faults.append("another environment than the locked one")
    if rule.text("script") not in (None, f"../scripts/{rule.name}.py"):
        faults.append("a script of another name")
    if "retries" in rule.directives:
        faults.append("retries: they belong in a profile, a cluster job would run them again")
    for name, call in rule.directives.items():
        for node in ast.walk(call):
            if isinstance(node, ast.Lambda):
                faults.append(f"lambda in {name}")
            elif isinstance(node, ast.BinOp | ast.JoinedStr):
                faults.append(f"arithmetic in {name}: {ast.unparse(node)}")
            elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("os."):
                faults.append(f"path arithmetic in {name}: {ast.unparse(node)}")
            elif (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in OF_A_STAGE
                and [ast.unparse(arg) for arg in node.args] != [repr(rule.name)]
            ):
                faults.append(f"another stage in {name}: {ast.unparse(node)}")
    return faults


def faults_of_script(tree: ast.Module) -> list[str]:
    """Return what in a script is more than binding names."""
    faults = [
        f"line {getattr(node, 'lineno', 0)}: {type(node).__name__}"
        for node in ast.walk(tree)
        if type(node).__name__ in THINKING
    ]
    faults += [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "config"
    ]
    if not ast.get_docstring(tree):
        faults.append("no docstring")
    return faults


@dataclass(frozen=True)
class Offer:
    """What one job of a rule offers its script: names of inputs, of parameters, of outputs."""

    inputs: frozenset[str]
    parameters: frozenset[str]
    outputs: frozenset[str]


def offers(rule: Rule) -> set[Offer]:
    """Return what the jobs of a rule offer; where the plan decides, each kind that occurs in it."""
    run, methods = quickstart(), planned(METHODS_WORLD)
    outputs = frozenset(rule.names("output"))
    if rule.name in STAGE_VERSION:
        return {
            Offer(frozenset(artefact.inputs), frozenset(artefact.parameters), outputs)
            for plan in (run.plan, methods.plan)
            for artefact in plan.stage(rule.name)
        }
    inputs = rule.names("input")
    if function := rule.unpacked("input"):
        inputs |= returned_names(function)
    specs = {
        f"report_spec({rule.name!r})": summary.report_spec(rule.name, run.config, run.plan),
        "figure_spec": summary.figure_spec(next(iter(summary.figure_groups(run.plan).values()))),
    }
    params = rule.directives.get("params")
    spec = specs[ast.unparse(params.keywords[0].value)] if params else {}
    return {Offer(frozenset(inputs), frozenset(spec.get("parameters", {})), outputs)}


def returned_names(function: str) -> set[str]:
    """Return the keys of the dict that an input function of common.smk returns."""
    (definition,) = (
        node
        for node in ast.walk(python_of(COMMON.read_text(), COMMON.name))
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    returned = definition.body[-1]
    assert isinstance(returned, ast.Return) and isinstance(returned.value, ast.Dict)
    return {ast.literal_eval(key) for key in returned.value.keys if key}


def faults_of_contract(offer: Offer, tree: ast.Module) -> list[str]:
    """Return where a script uses what its rule does not offer, or leaves out what it does."""
    faults = []
    known = {
        **dict.fromkeys(["snakemake.input", "work.inputs"], offer.inputs),
        **dict.fromkeys(["snakemake.output", "work.files"], offer.outputs),
        "work.spec": offer.parameters,
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = known.get(ast.unparse(node.value))
            if names is not None and node.attr not in names:
                faults.append(f"{ast.unparse(node)} is not declared")
        if isinstance(node, ast.Call) and any(k.arg is None for k in node.keywords):
            keywords = {k.arg for k in node.keywords if k.arg}
            for k in node.keywords:
                keywords |= known[ast.unparse(k.value)] if k.arg is None else set()
            faults += faults_of_call(ast.unparse(node.func), keywords, inputs=offer.inputs)
    return faults


def faults_of_call(function: str, keywords: set[str], *, inputs: frozenset[str]) -> list[str]:
    """Return which keywords a library function lacks or does not take.

    A function may take parameters as `**`, but an input only by its own name; as `**stores` those
    that end in the name of a variable.
    """
    module, name = function.split(".")
    parameters = signature(getattr(import_module(f"finescale.{module}"), name)).parameters
    named = {key: p for key, p in parameters.items() if p.kind is Parameter.KEYWORD_ONLY}
    needed = {key for key, p in named.items() if p.default is Parameter.empty}
    is_open = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    if "stores" in parameters:
        inputs = frozenset(role for role in inputs if role.rpartition("_")[2] not in VARIABLES)
    refused = (inputs if is_open else keywords) - named.keys()
    return [
        *(f"{function} does not take `{key}`" for key in sorted(refused)),
        *(f"{function} needs `{key}`" for key in sorted(needed - keywords)),
    ]


@cache
def quickstart() -> start.Run:
    """Return the plan of the quickstart; its synthetic sources need no lookup outside."""
    return planned(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))


def planned(mapping: dict[str, Any]) -> start.Run:
    with TemporaryDirectory() as folder:
        return start.read(mapping, Path(folder, "config.yaml"))


@cache
def rules() -> dict[str, Rule]:
    found = [rule for path in RULES for rule in read_rules(path.read_text(), path.name)]
    assert len({rule.name for rule in found}) == len(found)
    return {rule.name: rule for rule in found}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), path.name)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_a_rule_file_opens_with_its_purpose(path: Path) -> None:
    assert re.match(r'\s*(#[^\n]*\n)*\s*"""', path.read_text())


@pytest.mark.parametrize("name", sorted(rules()))
def test_a_rule_reads_as_a_sentence(name: str) -> None:
    assert faults_of_rule(rules()[name]) == []


def test_every_script_has_a_rule_of_its_name_and_the_reverse() -> None:
    assert SCRIPTS and {path.stem for path in SCRIPTS} == set(rules())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_binds_names_and_does_not_think(path: Path) -> None:
    assert faults_of_script(tree_of(path)) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_and_its_rule_keep_their_contract(path: Path) -> None:
    offered = offers(rules()[path.stem])
    assert offered, "no artefact of either plan tests this rule"
    for offer in offered:
        assert faults_of_contract(offer, tree_of(path)) == [], offer


@pytest.mark.parametrize("word", STAGE_VERSION)
def test_a_stage_module_knows_neither_snakemake_nor_the_config(word: str) -> None:
    names = {
        name
        for node in ast.walk(tree_of(LIBRARY / f"{word}.py"))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        if name
    }
    assert not {name for name in names if name.split(".")[0] == "snakemake"}
    assert not names & {"config", "finescale.config"}


GOOD_RULE = '''
rule coarsen:
    """Average the reference onto the grid of one GCM."""
    input:
        unpack(committed("coarsen")),
    output:
        store=sentinel("coarsen"),
    log:
        "logs/coarsen/{key}.log",
    benchmark:
        "benchmarks/coarsen/{key}.tsv"
    params:
        spec=spec("coarsen"),
    conda:
        "../../envs/finescale.yaml"
    script:
        "../scripts/coarsen.py"
'''
GOOD_SCRIPT = '''
"""Average the reference onto the grid of one GCM (rule `coarsen`)."""

from finescale import coarsen, job

with job.running(snakemake) as work:
    coarsen.run(work, **work.inputs, **work.spec)
'''


def test_the_model_rule_and_the_model_script_are_without_fault() -> None:
    (rule,) = read_rules(GOOD_RULE)
    assert faults_of_rule(rule) == []
    assert faults_of_script(ast.parse(GOOD_SCRIPT)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    """Average the reference onto the grid of one GCM."""\n', ""),
        ('log:\n        "logs/coarsen/{key}.log",', ""),
        ('benchmark:\n        "benchmarks/coarsen/{key}.tsv"', ""),
        ('conda:\n        "../../envs/finescale.yaml"', ""),
        ("../../envs/finescale.yaml", "../../envs/other.yaml"),
        ("../scripts/coarsen.py", "../scripts/average.py"),
        ("unpack(committed", "(committed"),
        ('unpack(committed("coarsen"))', 'lookup("reference")'),
        ('sentinel("coarsen")', 'sentinel("weights")'),
        ("store=sentinel", "sentinel"),
        ('spec=spec("coarsen")', "spec=lambda wildcards: {}"),
        ('unpack(committed("coarsen"))', 'reference=STORES + "/reference.zarr/.zmetadata"'),
        ('unpack(committed("coarsen"))', 'reference=f"{STORES}/reference.zarr/.zmetadata"'),
        ('unpack(committed("coarsen"))', 'reference=os.path.join(STORES, "reference")'),
        ("    script:", "    retries: 2\n    script:"),
    ],
)
def test_a_fault_of_a_rule_is_noticed(old: str, new: str) -> None:
    assert old in GOOD_RULE
    (rule,) = read_rules(GOOD_RULE.replace(old, new))
    assert faults_of_rule(rule) != []


@pytest.mark.parametrize(
    "line",
    [
        "def f(): pass",
        "for name in work.inputs: pass",
        "x = [name for name in work.inputs]",
        "if work.spec: pass",
        "path = work.output + '.json'",
        "coarsen.run(work, engine=snakemake.config)",
    ],
)
def test_a_script_that_thinks_is_noticed(line: str) -> None:
    assert faults_of_script(ast.parse(f"{GOOD_SCRIPT}    {line}\n")) != []


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("coarsen.run(work, **work.inputs, **work.spec)", []),
        ("coarsen.run(work, work.files.store)", []),
        ("coarsen.run(work, snakemake.input.gcm)", ["snakemake.input.gcm is not declared"]),
        ("coarsen.run(work, **work.inputs, grid=1)", ["coarsen.run needs `min_valid_fraction`"]),
        (
            "interpolate.run(work, **work.inputs, **work.spec)",
            [
                *(
                    "interpolate.run does not take `grid`",
                    "interpolate.run does not take `min_valid_fraction`",
                ),
                *(
                    "interpolate.run does not take `reference`",
                    "interpolate.run needs `simulation`",
                ),
            ],
        ),
        (
            "adjust.run(work, **work.inputs)",
            ["adjust.run does not take `weights`", "adjust.run needs `ref`"],
        ),
    ],
)
def test_a_broken_contract_is_noticed(line: str, faults: list[str]) -> None:
    offer = Offer(
        inputs=frozenset({"reference", "weights"}),
        parameters=frozenset({"grid", "min_valid_fraction"}),
        outputs=frozenset({"store"}),
    )
    found = faults_of_contract(offer, ast.parse(line))
    assert set(faults) <= set(found) and bool(faults) == bool(found)
