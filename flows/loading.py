"""Reads and checks a config. A fault becomes an error of one line with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from clustering.data.policies import DECODERS
from clustering.errors import ConfigError, nearest
from flows.cluster_config import KINDS
from flows.config import JobConfig
from flows.documents import kind_of, parse_document, read_document


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Read and check a config.

    Parameters
    ----------
    path
        A YAML file.
    overrides
        Changes of single keys, such as ``model.k=8``; values are YAML.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not valid YAML, or has an unknown key or a value that is not allowed. The message
        is one line with the remedy.
    """
    what = f"the config {str(path)!r}"
    try:
        content = read_document(path, what)
    except OSError as error:
        raise ConfigError(f"cannot read {what}: {error.strerror}; name a YAML file") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{what} {kind_of(content or None)} and holds no keys; {nearest('', JobConfig.model_fields)}")
    for override in overrides:
        _override(content, override)
    return check_config(content)


def check_config(content: dict[str, Any]) -> JobConfig:
    """Check a config that is given as nested dicts; see `load_config`."""
    try:
        return JobConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_sentence(error, content)) from None


def _override(content: dict[str, Any], override: str) -> None:
    """Set one key of a config in place, and make its sections where they are missing."""
    key, sign, text = override.partition("=")
    if not sign or not all(key.split(".")):
        raise ConfigError(f"--set takes key.path=value; got {override!r}, an example is --set model.k=8")
    *sections, last = key.split(".")
    node: Any = content
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}: {section!r} is a value, not a section")
    try:
        node[last] = parse_document(text, f"--set {key}: the value")
    except ConfigError:
        # The message of the parser shows the value, which may be a secret.
        raise ConfigError(f"--set {key}: the value is not YAML, or has a key twice; correct it") from None


_ALLOWED = {
    "compute.cluster": (
        "allowed: threads, synchronous, local, {address: tcp://host:port}, {scheduler_file: path}, {slurm: {…}}, "
        "{kubernetes: {image: …}}, {gateway: {address: …}}, {class: package.Class, options: {…}}"
    ),
    "model.beta": "allowed: auto, or a number greater than 0",
    "source.bbox": "allowed: four numbers, [west, south, east, north]",
    "preprocess.standardize": "allowed: false, per_feature, per_variable",
    "compute.block": "allowed: auto, or a size such as 64MiB",
    "source.nodata": "allowed: a number, or {variable: number}",
    "source.decode": f"allowed: {', '.join(DECODERS)}, or {{variable: decoder}}",
}
"""Remedies for keys that take one of several forms."""
_NEEDED = {
    "list_type": "a name or a list of names is needed",
    "dict_type": "names and values are needed: {name: value}",
}
"""Remedies for wrong types, by pydantic's name of the error."""


def _sentence(error: ValidationError, content: Any) -> str:
    """Describe the first fault of a config in one line."""
    # Unknown keys come first: a misspelt key is also a missing one, and its name helps more.
    first = min(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    keys = _key_path(first["loc"], content, first["type"] in ("missing", "extra_forbidden"))
    key = ".".join(keys)
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}; {nearest(keys[-1], _fields_at(keys[:-1], content))}"
        case "missing":
            return f"key {key!r} is missing; add it to the config"
        case "union_tag_not_found" if isinstance(first["input"], dict) and first["input"]:
            name = str(next(iter(first["input"])))
            return f"unknown key {f'{key}.{name}'!r}; {nearest(name, KINDS)}"
        case _:
            expected = first.get("ctx", {}).get("expected")
            remedy = f"allowed: {expected}" if expected else first["msg"].removeprefix("Value error, ")
            remedy = _NEEDED.get(first["type"], remedy[0].lower() + remedy[1:])
            if first["type"] == "string_type":
                remedy = _text_needed(first["input"])
            if first["type"] == "model_type":
                remedy = f"it is a section; allowed keys: {', '.join(_fields_at(keys, content))}"
            # The message of a rule over several keys names them already.
            if remedy.startswith(f"{key}."):
                return remedy
            remedy = _ALLOWED.get(key, remedy)
            # The value may be a secret, and is not shown then.
            kept = {"storage_options", "credentials", "options", "env", "pod"} & set(keys) or "holds a secret" in remedy
            hidden = kept or (keys[0] in ("source", "output") and isinstance(first["input"], dict))
            value = "not what is needed" if hidden else _written(first["input"])
            return f"{key} is {value}; {remedy}"


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


def _written(value: Any) -> str:
    """Write a value as in YAML, cut to fit a line."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_LONGEST = 120
"""Largest number of characters of a wrong value that a message shows."""


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


def _fields_at(path: list[str], content: Any) -> list[str]:
    """List the keys of a section. Where several kinds of section are allowed, the kind with most of the given keys."""
    model: type[BaseModel] = JobConfig
    for part in path:
        content = content.get(part) if isinstance(content, dict) else None
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        sections = [] if field is None else _sections_in(field.annotation)
        if not sections:
            break
        given = set(content) if isinstance(content, dict) else set()
        model = max(sections, key=lambda section, given=given: len(set(_names(section)) & given))  # type: ignore[misc]
    return _names(model)


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_in(inner)]


def _names(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]
