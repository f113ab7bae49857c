"""The configuration described for editors (JSON schema) and for people (docs/configuration.md).

Both are made from the models of `config`, so they say what is checked.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from finescale.config import Config

ROOT = Path(__file__).parents[3]
SCHEMA_PATH = ROOT / "workflow" / "schemas" / "config.schema.json"
PAGE_PATH = ROOT / "docs" / "configuration.md"

INTRODUCTION = """\
# The configuration

Made from the models in `workflow/lib/finescale/config.py` by `finescale schema --write`.
[How to write and choose](../config/README.md) is another page.

Unknown keys are refused. Names (of domains, periods, references, simulations, methods and of the
configuration itself) become parts of paths: letters, digits, dot and hyphen. Where a list of names
is expected, a single one will do.
"""


def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "Finescale configuration",
    }


def schema_text() -> str:
    """Return the text of workflow/schemas/config.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"


def page() -> str:
    """Return the text of docs/configuration.md: a table of keys for every section."""
    document = schema()
    sections = {"Config": document, **document["$defs"]}
    order = _reached("Config", sections)
    tables = [_section(name, sections[name]) for name in order]
    return "\n".join([INTRODUCTION, *tables, _synthetic_world()])


def _synthetic_world() -> str:
    from finescale.synthetic import MODELS, World

    rows = [f"| `{f.name}` | {f.type} | `{f.default}` |" for f in dataclasses.fields(World)]
    models = "; ".join(
        f"`{name}` ({model.calendar}: {', '.join(model.experiments)})"
        for name, model in MODELS.items()
    )
    text = f"The parameters of `synthetic`. Its models: {models}."
    return "\n".join(
        ["## World", "", text, "", "| key | type | default |", "|---|---|---|", *rows, ""]
    )


def _reached(start: str, sections: dict[str, Any]) -> list[str]:
    """Return the names of sections in the order in which a reader meets them."""
    found = [start]
    for name in found:
        for target in _references(sections[name]["properties"]):
            if target not in found:
                found.append(target)
    return found


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"].rpartition("/")[2]] if "$ref" in node else []
        return own + [name for value in node.values() for name in _references(value)]
    return [name for value in node for name in _references(value)] if isinstance(node, list) else []


def _section(name: str, section: dict[str, Any]) -> str:
    required = section.get("required", [])
    rows = [
        f"| `{key}` | {_type(field)} | {_default(key, field, required)} | {field['description']} |"
        for key, field in section["properties"].items()
    ]
    purpose = re.sub(r"docs/(stages/\w+\.md)", r"[\1](\1)", section["description"])
    head = ["| key | type | default | |", "|---|---|---|---|"]
    return "\n".join([f"## {name}", "", purpose, "", *head, *rows, ""])


def _default(key: str, field: dict[str, Any], required: list[str]) -> str:
    if key in required:
        return "**required**"
    default = field["default"]
    if default is None or isinstance(default, dict):
        return ""
    return f"`{json.dumps(default)}`"


def _type(node: dict[str, Any]) -> str:
    """Return a type in words; alternatives that a table need not tell apart are left out."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in node:
        kinds = [_type(option) for option in node["anyOf"] if option.get("type") != "null"]
        return " or ".join("list" if f == f"list of {kinds[0]}" else f for f in kinds)
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if "prefixItems" in node:
        return f"pair of {_type(node['prefixItems'][0])}"
    kind = node["type"]
    if kind == "array":
        return f"list of {_type(node['items'])}"
    if kind == "object":
        inner = node.get("additionalProperties", True)
        inner = next(iter(node.get("patternProperties", {}).values()), inner)
        return "mapping" if inner is True else f"mapping name: {_type(inner)}"
    if kind == "string":
        return "name" if "pattern" in node else "text"
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<="}
    said = ", ".join(f"{sign} {node[k]:g}" for k, sign in limits.items() if k in node)
    return f"{kind} {said}".strip()


def write() -> list[Path]:
    """Return the files of the checkout that were made anew."""
    texts = {SCHEMA_PATH: schema_text(), PAGE_PATH: page()}
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return list(texts)
