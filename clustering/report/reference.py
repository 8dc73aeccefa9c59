"""The reference page of all options, as Markdown: made from the schema of their declarations, which forms show too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from clustering.config import JobConfig

_HEAD = """# Options

All options of a job, by section of its config. In Python they are keywords of `clustering.fit`, `clustering.run` and
`Fit.label`, under the same names, apart from these: `source.store` is the data, `model` is an object such as
`KMeans(k=8)`, `output.store` is `output`, `output.storage_options` is `output_options`, and `output.labels` is
`write_labels`. On the command line, `--set section.option=value` changes one.

`make reference` makes this page from `clustering/options.py`, `clustering/config.py` and the classes of the models.
"""
_TABLE = "| option | values | default | meaning |\n|---|---|---|---|"


def reference() -> str:
    """Write the page."""
    schema = JobConfig.model_json_schema()
    sections = {name: _target(part, schema) for name, part in schema["properties"].items()}
    gate = {"output.gate": schema["$defs"]["GateOptions"]}
    kinds = ("AddressCluster", "SlurmOptions", "KubernetesOptions", "GatewayOptions", "ClassCluster")
    clusters = {f"compute.cluster: {_WORDS[kind]}": schema["$defs"][kind] for kind in kinds}
    parts = [_HEAD]
    for name, section in {**sections, **gate, **clusters}.items():
        parts += [f"## {name}", "", section["description"], "", _TABLE, *_rows(section, schema), ""]
    return "\n".join(parts)


_WORDS = {
    "AddressCluster": "a scheduler that runs",
    "SlurmOptions": "slurm",
    "KubernetesOptions": "kubernetes",
    "GatewayOptions": "gateway",
    "ClassCluster": "class",
}


def _rows(section: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    for name, option in section["properties"].items():
        default = _as_yaml(option["default"]) if "default" in option else ""
        values = " or ".join(dict.fromkeys(_values(option, schema)))
        cells = (f"`{name}`", values, default, option.get("description", ""))
        yield f"| {' | '.join(' '.join(cell.replace('|', '&#124;').split()) for cell in cells)} |"


def _values(option: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Say which values an option takes, a part for each kind of value."""
    option = _target(option, schema)
    kinds = option.get("anyOf") or option.get("oneOf")
    if kinds is not None:
        # Null comes last, as it stands for a default.
        for kind in sorted(kinds, key=lambda kind: kind.get("type") == "null"):
            yield from _values(kind, schema)
    elif "enum" in option or "const" in option:
        yield from (_as_yaml(value) for value in option.get("enum", [option.get("const")]))
    elif option.get("type") == "array":
        yield f"list of {' or '.join(dict.fromkeys(_values(option['items'], schema)))}"
    else:
        limits = ", ".join(f"{sign} {option[key]}" for key, sign in _LIMITS.items() if key in option)
        yield f"{_TYPES.get(str(option.get('type')), 'any')} {limits}".rstrip()


_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "object": "mapping",
    "null": "`null`",
}


def _target(option: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference inside the schema."""
    name = str(option.get("$ref", "")).rpartition("/")[2]
    return schema["$defs"][name] if name else option


def _as_yaml(value: Any) -> str:
    """Write a value as a config has it."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"
