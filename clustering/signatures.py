"""Signatures of functions that take options as keywords, made from the classes that declare the options."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from functools import cache, wraps
from types import UnionType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from clustering.errors import ClusteringError, ConfigError
from clustering.option_errors import fault_of
from clustering.option_texts import option_texts
from clustering.option_values import IN_PYTHON

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
Group = TypeVar("Group", bound=BaseModel)


def check_call(options: type[Group], values: Mapping[str, Any]) -> Group:
    """Check the options of a call in Python.

    Parameters
    ----------
    options
        Class that declares the options.
    values
        Options by name.

    Raises
    ------
    ConfigError
        Naming the first fault in one line.
    """
    # If None is no value of an option, it stands for the default, so that callers may pass on a None of their own.
    chosen = {name: value for name, value in values.items() if value is not None or _takes_none(options, name)}
    try:
        return options.model_validate(chosen, context=IN_PYTHON)
    except ValidationError as error:
        raise ConfigError(fault_of(error, options, values, in_python=True)) from None


def _takes_none(options: type[BaseModel], name: str) -> bool:
    field = options.model_fields.get(name)
    return field is None or type(None) in get_args(field.annotation)


def takes(options: Callable[P, Group]) -> Callable[[Callable[[A, Group], R]], Callable[Concatenate[A, P], R]]:
    """Give a function of one argument and a group of options the options as keywords.

    Its signature and its help list every option with type, default and text. The text replaces the entry ``options``
    of the docstring.

    Parameters
    ----------
    options
        Class that declares the options.
    """
    return lambda function: _with_keywords(function, options)


def takes_after_two(
    options: Callable[P, Group],
) -> Callable[[Callable[[A, B, Group], R]], Callable[Concatenate[A, B, P], R]]:
    """Give a function of two arguments and a group of options the options as keywords; see `takes`.

    Parameters
    ----------
    options
        Class that declares the options.
    """
    return lambda function: _with_keywords(function, options)


def _with_keywords(function: Callable[..., Any], options: Any) -> Callable[..., Any]:
    *leading, _ = inspect.signature(function).parameters.values()
    names = {parameter.name for parameter in leading}

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        if len(arguments) > len(leading):
            # Python's own message would name the parameter `options`, which users do not see.
            raise TypeError(
                f"{function.__name__}() takes {len(leading)} positional arguments, and {len(arguments)} were given; "
                "name the options"
            )
        named = {name: keywords.pop(name) for name in names & keywords.keys()}
        checked = check_call(options, keywords)
        try:
            return function(*arguments, **named, options=checked)
        except ClusteringError as error:
            # The error is changed in place, so that it keeps its class and its traceback.
            error.args = tuple(in_python_words(part, options) for part in error.args)
            raise

    keywords = _keywords(options)
    returned = inspect.signature(function).return_annotation
    call.__signature__ = inspect.Signature([*leading, *keywords], return_annotation=returned)  # type: ignore[attr-defined]
    call.__annotations__ = {**function.__annotations__, **{one.name: one.annotation for one in keywords}}
    # Callers give each option by its name, so `options` is no argument of the call.
    call.__annotations__.pop("options", None)
    if function.__doc__:
        call.__doc__ = _with_texts(function.__doc__, options)
    return call


def in_python_words(message: Any, options: type[BaseModel]) -> Any:
    """Name options in a message as calls in Python do: ``mask`` for ``source.mask``, the key of a config.

    Parameters
    ----------
    message
        The message; anything but text is returned as it is.
    options
        Class that declares the options of the call. Other keys stay.
    """
    if not isinstance(message, str):
        return message

    def renamed(key: re.Match[str]) -> str:
        name = _RENAMED.get(key[0], key[2])
        return name if name in options.model_fields or key[1] == "model" else key[0]

    return _KEY.sub(renamed, message)


# The file `model.zarr` looks like a key of the section `model`.
_KEY = re.compile(r"(?<![\w/.'\"-])(source|preprocess|model|fit|compute|select|output)\.(?!zarr)([a-z_]+)")
"""A key of a config, which is no part of a path."""
_RENAMED = {"output.store": "output", "output.storage_options": "output_options", "output.labels": "write_labels"}
"""Options whose names in Python differ from their keys."""


@cache
def _keywords(options: type[BaseModel]) -> list[inspect.Parameter]:
    hints = get_type_hints(options)
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True),
            annotation=hints[name],
        )
        for name, field in options.model_fields.items()
    ]


def _with_texts(docstring: str, options: type[BaseModel]) -> str:
    """Replace the entry ``options`` of a docstring by an entry for each option."""
    entries = []
    for parameter in _keywords(options):
        shown = _shown(parameter.annotation)
        value = parameter.default.model_dump() if isinstance(parameter.default, BaseModel) else parameter.default
        default = "" if value is inspect.Parameter.empty else f", default {value!r}"
        text = textwrap.fill(" ".join((option_texts(options).get(parameter.name, "")).split()), 108)
        entries.append(f"{parameter.name} : {shown}{default}\n{textwrap.indent(text, '    ')}")
    # Help and reference pages read docstrings without the indentation of the code.
    plain = inspect.cleandoc(docstring)
    return re.sub(r"(?m)^options\n(?: +.*\n)+", lambda _: "\n".join(entries) + "\n", plain)


def _shown(annotation: Any) -> str:
    """Write a type as a docstring does: ``str or None``, ``{'drop', 'error'}``."""
    arguments = [one for one in get_args(annotation) if one is not Ellipsis]
    if get_origin(annotation) is Literal:
        return ", ".join(map(repr, arguments)) if len(arguments) == 1 else f"{{{', '.join(map(repr, arguments))}}}"
    if get_origin(annotation) in (Union, UnionType):
        parts = [_shown(one) for one in arguments]
        return " or ".join(dict.fromkeys([*(one for one in parts if one != "None"), *parts]))
    if annotation is Any:
        return "object"
    if annotation is type(None):
        return "None"
    origin = get_origin(annotation)
    if origin is Callable:
        return "callable"
    if origin is not None:
        return (
            f"{origin.__name__} of {' to '.join(map(_shown, arguments))}" if Any not in arguments else origin.__name__
        )
    return "dict" if issubclass(annotation, BaseModel) else str(annotation.__name__)
