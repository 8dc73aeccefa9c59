"""Reads one YAML document of plain values. Ambiguous content is refused, with its line number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from clustering.errors import ConfigError

MOST_BYTES = 4 * 2**20
"""Largest size of a file in bytes. A larger file is data, not a config."""
MOST_VALUES = 500_000
"""Largest number of values of a document, with aliases expanded. Nested aliases can stand for billions of values."""
MOST_LEVELS = 40
"""Largest number of nested levels of a document."""

_TAG = "tag:yaml.org,2002:"
_KINDS = {"bool": "a truth value", "int": "a number", "float": "a number", "null": "nothing", "str": "text"}
_PLAIN = frozenset(f"{_TAG}{name}" for name in (*_KINDS, "map", "seq"))


class _Loader(yaml.SafeLoader):
    """Recognises numbers as YAML 1.2 does: 1e-6 is a number, 12:30 and 010 are not. Dates stay text.

    As in YAML 1.1, yes, no, on and off are truth values, because configs use them.
    """


# The rules of PyYAML are those of YAML 1.1: they read 12:30 as 750, 010 as 8, and 1e-6 as text.
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|[-+]?0(?:x[0-9a-fA-F_]+|o[0-7_]+|b[01_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", "<<", "<"),
    # PyYAML looks rules up by the first character. An empty value has none, hence the empty text at the end.
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"(?:{_pattern})$"), list(_first))


def read_document(path: str | Path, what: str) -> Any:
    """Read a file of one YAML document.

    Parameters
    ----------
    path
        The file.
    what
        Name of the file in messages, such as ``the config 'job.yaml'``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ConfigError
        As `parse_document`; for a file that is too large, or not text in UTF-8.
    """
    with Path(path).open("rb") as file:
        # A data file that was named by mistake may be larger than memory, so only its beginning is read.
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{what} is larger than {MOST_BYTES:,} bytes, so it is no YAML file of a few keys")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:100]:
        kind = "UTF-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "UTF-16, or no text at all"
        raise ConfigError(f"{what} is not YAML in UTF-8: it looks like {kind}; save it as UTF-8")
    try:
        # Some editors write a byte order mark first; utf-8-sig skips it.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{what} is not YAML in UTF-8, line {line}: byte 0x{content[error.start]:02x} is of another encoding, "
            "such as latin-1; save it as UTF-8"
        ) from None
    return parse_document(text, what)


def parse_document(text: str, what: str) -> Any:
    """Parse one YAML document of plain values.

    Returns
    -------
    Any
        Dicts with text as keys, lists, text, numbers, truth values and None. Aliases are expanded.

    Raises
    ------
    ConfigError
        If the text is not YAML, or has a duplicate key, a tag, several documents, or more than `MOST_VALUES` values.
        The message is one line that gives the line number.
    """
    loader: Any = None
    try:
        loader = _Loader(text)
        # Nodes know their lines and still hold keys that are given twice. The values that PyYAML makes do not.
        node = loader.get_single_node()
        return None if node is None else _Values(loader, what).of(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} is not YAML{_line(error)}: {_fault(error)}") from None
    # PyYAML makes nodes by recursion, so very deep documents fail before their levels are counted.
    except RecursionError:
        raise ConfigError(f"{what} has too many levels; {MOST_LEVELS} are the most") from None
    finally:
        if loader is not None:
            loader.dispose()


def kind_of(content: Any) -> str:
    """Describe a document that is not a mapping of keys, for a message."""
    match content:
        case None:
            return "is empty"
        case list():
            return "is a list"
        case dict():
            return "is a mapping"
        case str():
            return "is text"
        case _:
            return "is one value"


def _line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}"


def _fault(error: yaml.YAMLError) -> str:
    """Describe an error of the parser in plain words."""
    problem = " ".join(str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split())
    if "'\\t'" in problem:
        return "YAML allows only spaces there, and not a tab; replace the tab by spaces"
    if "another document" in problem:
        return "a second document begins there ('---'); keep one"
    if "special characters" in problem:
        return f"the character {getattr(error, 'character', 0)!r} is not allowed; remove it"
    if "undefined alias" in problem:
        return f"{problem}; put text that begins with * in quotes"
    return problem


class _Values:
    """Turns the nodes of one document into values, and counts them."""

    def __init__(self, loader: Any, what: str) -> None:
        self.loader, self.what, self.count = loader, what, 0

    def of(self, node: yaml.Node, level: int = 0) -> Any:
        self.count += 1
        if self.count > MOST_VALUES:
            raise ConfigError(f"{self.what} holds more than {MOST_VALUES:,} values, aliases written out; shorten it")
        if level > MOST_LEVELS:
            raise self._refused(
                node, f"there are more than {MOST_LEVELS} levels, or a value that holds itself; write it out"
            )
        if node.tag not in _PLAIN:
            tag = node.tag.replace(_TAG, "!!")
            raise self._refused(node, f"the tag {tag!r} is not allowed; plain values are")
        match node:
            case yaml.MappingNode():
                return self._mapping(node, level)
            case yaml.SequenceNode():
                return [self.of(item, level + 1) for item in node.value]
            case _:
                return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, level: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in self._entries(node):
            if not isinstance(key, yaml.ScalarNode):
                raise self._refused(key, "a list or a mapping stands as a key; names are text")
            # Keys are text as written, so that 2010 and no are names here.
            name = str(key.value)
            if name in lines:
                raise self._refused(
                    key, f"the key {name!r} is given twice, first in line {lines[name]}; keep one of them"
                )
            lines[name] = key.start_mark.line + 1
            values[name] = self.of(value, level + 1)
        return {**self._merged(node, level), **values}

    def _entries(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        return ((key, value) for key, value in node.value if key.tag != f"{_TAG}merge")

    def _merged(self, node: yaml.MappingNode, level: int) -> dict[str, Any]:
        """Return the keys that ``<<`` takes from other mappings. Keys beside it win over these."""
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                taken = self.of(value, level + 1)
                # By the definition of <<, earlier mappings win over later ones, so these are written last.
                for one in reversed(taken if isinstance(taken, list) else [taken]):
                    if not isinstance(one, dict):
                        raise self._refused(value, "<< takes a mapping, such as *name of one")
                    merged.update(one)
        return merged

    def _scalar(self, node: yaml.Node) -> Any:
        text = str(node.value)
        try:
            match node.tag.removeprefix(_TAG):
                case "null":
                    return None
                case "bool":
                    return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[
                        text.lower()
                    ]
                case "int":
                    return int(text.replace("_", ""), 0)
                case "float":
                    plain = text.replace("_", "").lower()
                    return float(plain.replace(".inf", "inf").replace(".nan", "nan"))
                case _:
                    return text
        except (ValueError, KeyError):
            # A tag forces a type that the text does not have, or the number has too many digits.
            kind = _KINDS[node.tag.removeprefix(_TAG)]
            raise self._refused(node, f"{text[:40]!r} is not {kind}; correct it") from None

    def _refused(self, node: yaml.Node, fault: str) -> ConfigError:
        return ConfigError(f"{self.what}, line {node.start_mark.line + 1}: {fault}")
