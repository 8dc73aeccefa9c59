"""Reads and checks a config. A fault becomes an error of one line with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clustering.config import JobConfig, check_config
from clustering.errors import ConfigError, nearest
from clustering_flows.documents import kind_of, parse_document, read_document


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
    # This comes before the check, so that an override can supply a key that the file lacks.
    for override in overrides:
        _override(content, override)
    return check_config(content)


def _override(content: dict[str, Any], override: str) -> None:
    """Set one key of a config in place, and make its sections where they are missing."""
    key, sign, text = override.partition("=")
    if not sign or not all(key.split(".")):
        raise ConfigError(f"--set takes key.path=value; got {override!r}, an example is --set model.k=8")
    *sections, last = key.split(".")
    node: Any = content
    for section in sections:
        # A section whose keys are all commented out is None in YAML.
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
