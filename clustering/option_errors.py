"""Faults of options in one line each: the name and value, and what is allowed."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from clustering.cluster_options import KINDS
from clustering.errors import cut, nearest
from clustering.policies import DECODERS


def fault_of(error: ValidationError, options: type[BaseModel], values: Any, *, in_python: bool) -> str:
    """Describe the first fault of options in one line.

    Parameters
    ----------
    error
        Error of pydantic.
    options
        Class that declares the options.
    values
        The options that were checked, by name.
    in_python
        Whether they come from a call in Python, so that the message speaks of options and writes values as Python does.
        Otherwise it speaks of keys, and writes values as YAML does.
    """
    noun, written = ("option", repr) if in_python else ("key", as_yaml)
    # Unknown names come first: a misspelt name is also a missing one, and its name helps more.
    first = min(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    keys = _key_path(first["loc"], values, first["type"] in ("missing", "extra_forbidden"))
    key = ".".join(keys)
    match first["type"]:
        case "extra_forbidden":
            return f"unknown {noun} {key!r}; {nearest(keys[-1], _fields_at(options, keys[:-1], values))}"
        case "missing":
            return f"{noun} {key!r} is missing; {'give it' if in_python else 'add it to the config'}"
        # No key belongs to a kind of cluster, so the first one is probably misspelt.
        case "union_tag_not_found" if isinstance(first["input"], dict) and first["input"]:
            name = str(next(iter(first["input"])))
            return f"unknown {noun} {f'{key}.{name}'!r}; {nearest(name, KINDS)}"
    # The limits and the allowed words are in the context that pydantic gives to an error.
    facts = first.get("ctx", {})
    remedy = first["msg"].removeprefix("Value error, ")
    remedy = _NEEDED.get(first["type"], remedy[0].lower() + remedy[1:])
    for name, value in facts.items():
        remedy = remedy.replace(f"{{{name}}}", f"{value:g}" if isinstance(value, float) else str(value))
    if "expected" in facts:
        # pydantic gives the allowed words only as one text: 'a', 'b' or 'c'.
        words = re.split(r", | or ", facts["expected"].replace("'", ""))
        remedy = nearest(str(first["input"]), [written(False) if word == "False" else word for word in words])
    if first["type"] == "string_type":
        arrays = in_python and keys[-1] in _ARRAYS
        remedy = "a name or an array is needed" if arrays else _text_needed(first["input"])
    if first["type"] == "model_type":
        remedy = f"it is a section; allowed keys: {', '.join(_fields_at(options, keys, values))}"
    # A rule over several options names them in its message already.
    if not keys or remedy.startswith(f"{key}."):
        return remedy
    if first["type"] == "value_error" and _is_section(options, keys, values):
        return f"{key}.{remedy}"
    remedy = _ALLOWED.get(keys[-1], remedy)
    # This message leaves out the value, because it is the secret.
    if "holds a secret" in remedy:
        return f"{key}: {remedy}"
    # A value that may hold a secret is not shown.
    private = {"storage_options", "credentials", "options", "env", "pod"} & set(keys)
    hidden = private or (keys[0] in ("source", "output") and isinstance(first["input"], dict))
    return f"{key} is {_form(first['input']) if hidden else cut(written(first['input']))}; {remedy}"


def as_yaml(value: Any) -> str:
    """Write a value as in YAML.

    Parameters
    ----------
    value
        Value of a config.
    """
    words = {None: "null", True: "true", False: "false"}
    # As keys of a dict, 1 and 0 equal True and False, so types are checked first.
    return words[value] if value is None or isinstance(value, bool) else repr(value)


def _form(value: Any) -> str:
    """Say in what form a value is, without showing it."""
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return "text"
        case _:
            return "one value"


_ARRAYS = {"mask", "weights", "labels", "feature_weights"}
"""Options that are names, and in Python also arrays."""
_ALLOWED = {
    "cluster": (
        "allowed: threads, synchronous, local, {address: tcp://host:port}, {scheduler_file: path}, {slurm: {…}}, "
        "{kubernetes: {image: …}}, {gateway: {address: …}}, {class: package.Class, options: {…}}"
    ),
    "bbox": "allowed: four numbers, [west, south, east, north]",
    "block": "allowed: auto, or a size such as 64MiB",
    "nodata": "allowed: a number, or {variable: number}",
    "decode": f"allowed: {', '.join(DECODERS)}, or {{variable: decoder}}",
}
"""Remedies for keys that take one of several forms."""
_NEEDED = {
    "greater_than": "more than {gt} is needed",
    "greater_than_equal": "{ge} or more is needed",
    "less_than": "less than {lt} is needed",
    "less_than_equal": "{le} or less is needed",
    "finite_number": "a finite number is needed",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number is needed"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number is needed"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false is needed"),
    "list_type": "a name or a list of names is needed",
    "callable_type": "a function is needed",
    "dict_type": "names and values are needed: {name: value}",
}
"""Remedies for wrong types, by pydantic's name of the error."""


def _text_needed(value: Any) -> str:
    """Say how to write a value that YAML does not read as text, and that was probably meant as a name."""
    match value:
        case bool():
            return "text is needed; put names such as on, off, yes and no in quotes, they are truth values without"
        case None:
            return "text is needed; put null in quotes where it is a name"
        case int() | float():
            return "text is needed; put numbers that are names in quotes"
        case _:
            return "text is needed"


def _key_path(loc: tuple[int | str, ...], content: Any, absent: bool) -> list[str]:
    """Turn pydantic's location of an error into keys of the config, without the names of union members.

    `absent` says that the fault is the key itself, so the last part counts as a key although the config lacks it.
    """
    path: list[str] = []
    for number, part in enumerate(loc):
        present = (isinstance(content, dict) and part in content) or (
            isinstance(content, list) and isinstance(part, int)
        )
        if present:
            content = content[part]
        if present or (absent and number == len(loc) - 1):
            path.append(" ".join(str(part).split()))
    return path


def _fields_at(root: type[BaseModel], path: list[str], content: Any) -> list[str]:
    """List the keys of the section at a path; those of the last section above where there is none."""
    section = root
    for part in path:
        content = content.get(part) if isinstance(content, dict) else None
        below = _section_at(section, part, content)
        if below is None:
            break
        section = below
    return _names(section)


def _is_section(root: type[BaseModel], path: list[str], content: Any) -> bool:
    """Return whether a path leads to a section, and not to a value."""
    section: type[BaseModel] | None = root
    for part in path:
        content = content.get(part) if isinstance(content, dict) else None
        section = None if section is None else _section_at(section, part, content)
    return section is not None


def _section_at(section: type[BaseModel], key: str, content: Any) -> type[BaseModel] | None:
    """Return the section below a key; of several kinds that are allowed, the kind with most of the present keys."""
    field = next((f for name, f in section.model_fields.items() if key in (name, f.alias)), None)
    below = [] if field is None else _sections_in(field.annotation)
    present = set(content) if isinstance(content, dict) else set()
    return max(below, key=lambda one: len(set(_names(one)) & present), default=None)


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_in(inner)]


def _names(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]
