"""Public functions describe their arguments in numpydoc's sections: the names, and for arrays the shapes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import clustering

HOME = Path(clustering.__file__).parent
MODULES = sorted(path.relative_to(HOME) for path in HOME.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, Function]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{node.name}.")
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield owner + node.name, node


def arguments(function: Function) -> list[str]:
    named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    rest = [one for one in (function.args.vararg, function.args.kwarg) if one is not None]
    return [one.arg for one in (*named, *rest) if one.arg not in ("self", "cls")]


def described(docstring: str, section: str) -> set[str]:
    """Names at the left edge of a section."""
    lines = docstring.splitlines()
    starts = [i for i, line in enumerate(lines[:-1]) if line == section and set(lines[i + 1]) == {"-"}]
    names: set[str] = set()
    for start in starts:
        for i, line in enumerate(lines[start + 2 :], start + 2):
            if i + 1 < len(lines) and line and set(lines[i + 1]) == {"-"}:
                break
            if line and not line.startswith(" "):
                names |= {name.strip(" *") for name in line.split(":")[0].split(",")}
    return names


CONTRACTS = {
    "models/model.py": ("Model", "SoftModel"),
    "models/sampling.py": ("RowGenerator",),
    "models/run_statistics.py": ("RunStatistics",),
    "models/margins.py": ("MarginStatistics",),
    "run/watch.py": ("Watch",),
}
"""Protocols and abstract classes that describe arguments once, for all classes in the same folder."""


def of_contracts(room: str) -> set[str]:
    """Names of the methods of the protocols in a folder."""
    classes = [
        node
        for module, names in CONTRACTS.items()
        if Path(module).parent.name == room
        for node in ast.parse((HOME / module).read_text()).body
        if isinstance(node, ast.ClassDef) and node.name in names
    ]
    return {name.split(".")[1] for node in classes for name, _ in public_functions([node])}


def is_described_by_a_contract(module: Path, name: str) -> bool:
    owner, _, method = name.rpartition(".")
    itself = owner in CONTRACTS.get(module.as_posix(), ())
    return bool(owner) and not itself and method in of_contracts(module.parent.name)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_public_functions_describe_their_arguments(module: Path) -> None:
    lacking = {
        name: missing
        for name, function in public_functions(ast.parse((HOME / module).read_text()).body)
        if (missing := set(arguments(function)) - described(ast.get_docstring(function) or "", "Parameters"))
        and not is_described_by_a_contract(module, name)
    }
    assert not lacking
