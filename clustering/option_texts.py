"""Texts of options: the docstrings below the fields of a class, read from its source when somebody looks at them.

Few commands show a text, and those that do not start sooner without reading the source of every class.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Described(BaseModel):
    """A class of options, whose JSON schema has the texts."""

    # A call needs few of these classes, and pydantic takes milliseconds to prepare each.
    model_config = ConfigDict(defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for name, text in option_texts(cls).items():
            key = cls.model_fields[name].alias or name
            if key in properties:
                properties[key]["description"] = text
        return made


@cache
def option_texts(options: type[BaseModel]) -> Mapping[str, str]:
    """Return the texts of the options that a class declares or inherits, by name.

    Parameters
    ----------
    options
        Class that declares the options.
    """
    texts: dict[str, str] = {}
    for base in reversed(options.__mro__):
        if issubclass(base, Described):
            texts |= _texts_of_module(base.__module__).get(base.__qualname__, {})
    return {name: texts[name] for name in options.model_fields if name in texts}


@cache
def _texts_of_module(module: str) -> Mapping[str, Mapping[str, str]]:
    """Read the texts of all classes of a module, by class and name; none where Python has no source."""
    try:
        source = inspect.getsource(sys.modules[module])
    except OSError:
        return {}
    return {node.name: dict(_texts(node)) for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _texts(declared: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(declared.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, inspect.cleandoc(text)
