from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import clustering

ROOT = Path(clustering.__file__).parent
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
FLOWS = sorted((ROOT.parent / "flows" / "clustering_flows").rglob("*.py"))
modules = pytest.mark.parametrize("name", MODULES)

# The parts of the library that each part may import beside itself: no more than it needs, from the bottom to the top.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "deferred": set(),
    "local_arrays": {"deferred"},
    "blas": {"deferred"},
    "temporary": set(),
    "compat": set(),
    "compiling": {"deferred", "temporary", "compat"},
    "policies": set(),
    "secret_options": set(),
    "option_texts": set(),
    "option_values": set(),
    "cluster_options": {"option_texts", "option_values", "secret_options"},
    "option_errors": {"errors", "policies", "cluster_options"},
    "options": {"policies", "option_texts", "option_values", "cluster_options"},
    "signatures": {"errors", "option_texts", "option_values", "option_errors"},
    "showing": {"errors"},
    "html_repr": set(),
    "data": {
        "errors",
        "deferred",
        "local_arrays",
        "html_repr",
        "temporary",
        "compat",
        "compiling",
        "policies",
        "options",
        "signatures",
    },
    "models": {"errors", "blas", "compiling", "data"},
    "execution": {"errors", "deferred", "blas", "temporary", "compat", "data", "models"},
    "fitting": {"errors", "deferred", "blas", "policies", "options", "data", "models", "execution"},
    "storage": {"errors", "deferred", "local_arrays", "data", "models", "execution", "fitting"},
    "exports": {"errors", "deferred", "compat", "data", "models", "fitting", "storage"},
    "config": {"errors", "secret_options", "option_values", "option_errors", "options", "data", "models"},
    "plots": {"errors", "deferred", "temporary", "data", "models", "fitting"},
    "report": {"errors", "deferred", "options", "config", "data", "models", "fitting", "plots"},
    "run": {"errors", "deferred", "option_values", "cluster_options", "options", "config"}
    | {"data", "models", "execution", "fitting", "storage", "plots", "report"},
    "fitted": {"deferred", "html_repr", "showing", "signatures", "option_values", "options"}
    | {"data", "models", "execution", "fitting", "storage", "exports", "run", "plotting"},
    "plotting": {"errors", "deferred", "options", "signatures", "showing", "data", "fitting", "plots"},
    "progress": {"errors", "execution", "fitting", "run", "report"},
    "api": {
        "errors",
        "deferred",
        "html_repr",
        "progress",
        "showing",
        "signatures",
        "option_values",
        "options",
        "config",
    }
    | {"data", "models", "execution", "fitting", "storage", "exports", "run", "plotting", "fitted", "selected"},
    "selected": {"deferred", "options", "plotting", "fitted"},
    "images": {"errors", "deferred", "compiling", "signatures", "option_values", "options"}
    | {"data", "models", "execution", "fitting", "exports", "run"},
    "sklearn": {"errors", "blas", "showing", "signatures", "options", "data", "models", "fitted", "api"},
    "accessor": {"deferred", "data", "models", "fitted", "api"},
    "xarray": {"accessor"},
    "__init__": {"errors", "deferred", "data", "models", "fitted", "selected", "images", "api"},
}


EVERYWHERE = {
    **{f"clustering/{name}": path for name, path in MODULES.items()},
    **{f"clustering_flows/{path.name}": path for path in FLOWS},
}


@cache
def parsed(path: Path) -> ast.Module:
    """Syntax tree of a file. It is cached because several tests use it."""
    return ast.parse(path.read_text())


def part_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


@cache
def imported(path: Path) -> frozenset[str]:
    """Full names of all modules imported anywhere in a file, also inside functions and for types alone."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


@pytest.mark.parametrize("folder", ["clustering", "flows", "tests", "benchmarks", "docs"])
def test_flows_have_one_import_name(folder: str) -> None:
    """Under a second name, each module would be loaded a second time; and users have packages called ``flows``."""
    names = {name for path in (ROOT.parent / folder).rglob("*.py") for name in imported(path)}
    assert not {name for name in names if name.split(".")[0] == "flows"}


def test_the_folder_of_the_flows_is_no_package() -> None:
    assert not [*(ROOT.parent / "flows").glob("*.py")]


@pytest.mark.parametrize("name", ["README.md", "docs/deploy.md", "docker-compose.yml", "prefect.yaml", "Makefile"])
def test_commands_and_entrypoints_use_the_import_name_of_the_flows(name: str) -> None:
    assert not re.findall(r"(?<![\w/.])flows\.[a-z_]+", (ROOT.parent / name).read_text())


def parts_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("clustering.")}


def test_every_part_of_the_library_is_known() -> None:
    assert {part_of(name) for name in MODULES} == set(ALLOWED)


@modules
def test_the_library_imports_neither_prefect_nor_the_command_line(name: str) -> None:
    packages = {full.split(".")[0] for full in imported(MODULES[name])}
    # Calls from Python may ask for a progress bar.
    drawn = {"rich"} if name == "progress.py" else set()
    assert not packages & {"prefect", "clustering_flows", "cyclopts", "rich"} - drawn


@modules
def test_imports_run_one_way(name: str) -> None:
    part = part_of(name)
    assert parts_imported(MODULES[name]) - {part} <= ALLOWED[part]


def test_no_parts_import_each_other() -> None:
    graph: dict[str, set[str]] = {part: set() for part in ALLOWED}
    for name, path in MODULES.items():
        graph[part_of(name)] |= parts_imported(path) - {part_of(name)}
    TopologicalSorter(graph).prepare()


def imported_modules(path: Path, module_names: set[str]) -> set[str]:
    """Names of the modules that a file imports. An import may also name an object inside a module."""
    names = set()
    for full in imported(path):
        while full and full not in module_names:
            full = full.rpartition(".")[0]
        names |= {full} if full else set()
    return names


def test_no_modules_import_each_other() -> None:
    names = {".".join(Path(name).with_suffix("").parts): path for name, path in EVERYWHERE.items()}
    module_paths = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {name: imported_modules(path, set(module_paths)) - {name} for name, path in module_paths.items()}
    assert graph["clustering.data.reading"] >= {"clustering.data.source", "clustering.errors"}
    TopologicalSorter(graph).prepare()


INTERNAL = ("zarr.core", "xarray.core", "xarray.coding", "xarray.backends", "prefect._internal")
"""Modules of other packages that may change with every version."""
DOCUMENTED = {"_replace", "_getframe", "_create_unverified_context"}
"""Names with an underscore that Python documents."""


def private_names_used(path: Path) -> set[str]:
    """Names with an underscore that a file takes from objects of other modules, and modules of `INTERNAL`."""
    tree = parsed(path)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    private_names = {full for full in imported(path) if full.startswith(INTERNAL)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            private_names |= set() if of_self or node.attr in own | DOCUMENTED else {node.attr}
        elif isinstance(node, ast.Call):
            private_names |= {f"{word.arg}=" for word in node.keywords if (word.arg or "").startswith("_")}
    return private_names


@pytest.mark.parametrize("name", [name for name in EVERYWHERE if part_of(name.split("/", 1)[1]) != "compat"])
def test_private_names_of_other_packages_are_used_in_one_place(name: str) -> None:
    assert not private_names_used(EVERYWHERE[name])


@modules
def test_no_module_is_long(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= 500


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("models/")])
def test_the_compiler_never_chooses_how_numbers_are_rounded(name: str) -> None:
    # It would choose by what stands around a loop, and so by which kernels come from the cache.
    assert not re.search(r"fastmath|flags=", MODULES[name].read_text())


@modules
def test_the_library_never_prints(name: str) -> None:
    calls = [node.func for node in ast.walk(parsed(MODULES[name])) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]


KINDS = {f"clustering.models.{name}" for name in ("mixture", "mixture_params", "soft_kmeans", "soft_kmeans_params")}
"""Modules of single models, without ``kmeans``: every model may start from its hard clusters."""


def names_a_model(node: ast.expr) -> bool:
    """Whether an expression is a model, its params or statistics by its name."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in ("model", "params", "statistics")


def kind_branches(path: Path) -> list[str]:
    """Expressions that branch on the kind of a model."""
    branches = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Compare | ast.Match):
            sides = [node.subject] if isinstance(node, ast.Match) else [node.left, *node.comparators]
            of_model = any(isinstance(s, ast.Attribute) and s.attr == "kind" and names_a_model(s.value) for s in sides)
            literal = isinstance(node, ast.Match) or any(isinstance(s, ast.Constant | ast.Tuple) for s in sides)
            if of_model and literal:
                branches.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            asks = node.func.id in ("hasattr", "isinstance")
            asks |= node.func.id == "getattr" and isinstance(node.args[1], ast.Constant)
            if asks and names_a_model(node.args[0]):
                branches.append(ast.unparse(node))
    return branches


ONE_FOR_EACH = ("models", "__init__", "accessor", "sklearn")
"""Parts that have a name, a method or a class for each kind of model."""
OUTSIDE = {
    **{f"clustering/{name}": path for name, path in MODULES.items() if part_of(name) not in ONE_FOR_EACH},
    **{f"clustering_flows/{path.name}": path for path in FLOWS},
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_outside_the_models_asks_for_their_kind(name: str) -> None:
    assert not kind_branches(OUTSIDE[name])
    assert not {full.rpartition(".")[0] for full in imported(OUTSIDE[name])} & KINDS


LAZY = {"pandas", "scipy", "xarray", "zarr"}
"""Packages that take long to load, and that come from `clustering.deferred` and `clustering.blas`."""
LOADED_WITH_ZARR = {"data/sparing_store.py", "data/wrapped_stores.py", "deferred.py", "xarray.py"}
"""Modules that are loaded after zarr or xarray alone, as they extend them; and the module that loads these."""


def imported_on_loading(path: Path) -> set[str]:
    """Names of the packages that a file imports as it is loaded."""
    names = set()
    for node in parsed(path).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize("name", sorted(MODULES.keys() - LOADED_WITH_ZARR))
def test_packages_that_take_long_to_load_wait_until_they_are_used(name: str) -> None:
    # Workers of a cluster load BLAS libraries first of all.
    allowed = {"scipy"} if name == "execution/worker_environment.py" else set()
    heavy = LAZY | ({"dask", "matplotlib"} if part_of(name) not in ("plots", "report") else {"dask"})
    assert not imported_on_loading(MODULES[name]) & heavy - allowed
