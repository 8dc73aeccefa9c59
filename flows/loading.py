"""Reading a config, and saying what is wrong with it in one line."""

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
        ``key.path=value``, the value as YAML.

    Raises
    ------
    ConfigError
        For a file that cannot be read, YAML that does not parse, an unknown key, or a value that is not allowed: one
        line with the remedy.
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
    """Check a config given as nested dicts; see `load_config`."""
    try:
        return JobConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_sentence(error, content)) from None


def _override(content: dict[str, Any], override: str) -> None:
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
        # It may hold a secret, which the parser would show.
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
"""What to say of keys that take one of several forms."""
_NEEDED = {
    "list_type": "a name or a list of names is needed",
    "dict_type": "names and values are needed: {name: value}",
}
"""What to say of wrong types, by pydantic's name for them."""


def _sentence(error: ValidationError, content: Any) -> str:
    """Say the first fault of a config in one line."""
    # A key that is missing may be there under a name that is not known.
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
            # A rule over several keys names them itself.
            if remedy.startswith(f"{key}."):
                return remedy
            remedy = _ALLOWED.get(key, remedy)
            # What stands there may be a secret.
            kept = {"storage_options", "credentials", "options", "env", "pod"} & set(keys) or "holds a secret" in remedy
            hidden = kept or (keys[0] in ("source", "output") and isinstance(first["input"], dict))
            value = "not what is needed" if hidden else _written(first["input"])
            return f"{key} is {value}; {remedy}"


def _text_needed(value: Any) -> str:
    """Say why what was written is no text, where it may have been meant as a name."""
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
    """Write a value as a config has it, cut to a length that fits a line."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_LONGEST = 120
"""Characters of a wrong value that a message shows."""


def _key_path(loc: tuple[int | str, ...], content: Any, absent: bool) -> list[str]:
    """Keep the keys of a config from the place of an error, and leave out the members of unions.

    Where the fault is a key, `absent` tells that the last part is one all the same.
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
    """Name the keys of a section; of several that may stand there, of the one whose keys are there."""
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
