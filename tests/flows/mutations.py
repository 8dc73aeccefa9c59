"""Inputs with one or two things wrong in them, by a seed: configs, metadata, chunks, models, checkpoints, records."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr

TEXTS = (
    "", " ", "t", "q", "row", "lat", "cos(lat)", "cos(", "nan", "none", "auto", "K", "degrees_north", "days since",
    "i4", "float32", "<f8", "|b1", "x" * 300, "größe", "\u0000", "a\nb", "5%", "{}", "[1", "!!x", "*", "2001-01-01",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 7, 255, -(2**31), 2**40, 2**64, 10**30, 0.5, -0.5, 1e-300, 1e308, float("nan"), float("inf"))
VALUES: tuple[Any, ...] = (
    None, True, False, *TEXTS, *NUMBERS, [], {}, [[]], [1], [None], ["t", "t"], {"a": 1}, {"start": 1}, {"": None},
    {"t": "q"}, [1, "a"], {"name": "bytes"}, {"name": "none", "configuration": {}},
)  # fmt: skip

CONFIG: dict[str, Any] = {
    "source": {
        "store": "s.zarr", "variables": ["t", "q"], "sample_dims": ["row", "lat"], "feature_dims": ["level"],
        "mask": "sea", "weights": "cos(lat)", "select": {"row": {"start": 0, "stop": 25}}, "isel": {"level": [0, 1]},
        "missing": "drop", "nodata": {"q": -9}, "decode": None, "storage_options": {}, "group": None,
    },
    "preprocess": {"standardize": "per_feature", "unit_norm": False, "pca": None, "whiten": False},
    "model": {"kind": "kmeans", "k": 2},
    "fit": {"seed": 0, "restarts": 2, "finalists": 1, "sample_rows": 100, "init": "kmeans++", "max_iterations": 4,
            "tolerance": 0, "max_seconds": 5, "fraction": 1.0},
    "compute": {"cluster": "synchronous", "memory": "4MiB", "block": "4KiB", "workers": None},
    "output": {"store": "out", "labels": True, "distance": True, "report": False, "keep": 5, "overwrite": False},
}  # fmt: skip
"""A job in which every mutation finds something to spoil; all of its paths are relative."""
ENDLESS = {"restarts", "finalists", "sample_rows", "max_seconds"}
"""Keys whose large values are valid and make a run slow."""


def prepare(folder: Path, zarr_format: int, run: Callable[[list[str]], int]) -> None:
    """Write a store, a config and a finished run; `run` runs the command in this folder."""
    rng = np.random.default_rng(3)
    group = zarr.create_group(str(folder / "s.zarr"), zarr_format=zarr_format)  # type: ignore[arg-type]

    def write(name: str, dims: tuple[str, ...], values: Any, chunks: tuple[int, ...], **attributes: Any) -> None:
        values = np.asarray(values)
        by_format: dict[str, Any] = (
            {"dimension_names": dims, "attributes": attributes}
            if zarr_format == 3
            else {"attributes": {**attributes, "_ARRAY_DIMENSIONS": list(dims)}}
        )
        made = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks, **by_format)
        made[...] = values

    write("t", ("row", "lat", "level"), rng.normal(size=(30, 4, 3)).astype("f4"), (8, 4, 3), units="K")
    packed = rng.integers(-5, 5, (30, 4, 3)).astype("i2")
    write("q", ("row", "lat", "level"), packed, (10, 4, 3), scale_factor=0.5, add_offset=1.0, _FillValue=-5)
    write("sea", ("lat",), np.array([1, 1, 0, 1], "i1"), (4,))
    write("row", ("row",), np.arange(1, 31), (30,))
    write("lat", ("lat",), np.array([-60.0, -20.0, 20.0, 60.0]), (4,), units="degrees_north")
    write("level", ("level",), np.array([5.0, 10.0, 20.0]), (3,), units="m")
    (folder / "job.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    assert run(["fit", "job.yaml", "--no-prefect"]) == 0
    (folder / "out").rename(folder / "finished")


def spoilt_value(rng: random.Random, content: Any) -> Any:
    """Replace, remove, add or wrap one value, wherever it lies."""
    content = deepcopy(content)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(content)
    if not places:
        return rng.choice(VALUES)
    node, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del node[key]
        case 1:
            node[key] = [node[key]]
        case 2 if isinstance(node, dict):
            node[str(key) + rng.choice("sx_")] = node.pop(key)
        case 3:
            node[key] = str(node[key])
        case _:
            pool = VALUES if key not in ENDLESS else [v for v in VALUES if not isinstance(v, (int, float))]
            node[key] = deepcopy(rng.choice(pool))
    return content


def spoilt_bytes(rng: random.Random, content: bytes) -> bytes:
    """Cut, flip, insert, repeat or empty some bytes."""
    if not content:
        return b"x"
    at = rng.randrange(len(content))
    match rng.randrange(6):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
        case 2:
            return content[:at] + bytes([rng.randrange(256)]) + content[at:]
        case 3:
            return content[:at] + content[at // 2 :]
        case 4:
            return content[:at] + content[at + rng.randrange(1, 9) :]
        case _:
            return b"" if rng.random() < 0.3 else bytes(rng.randrange(256) for _ in range(len(content)))


def spoil_file(rng: random.Random, path: Path) -> None:
    """Spoil a file: remove it, put a folder in its place, change values of its JSON or change its bytes."""
    kind = rng.random()
    if kind < 0.05:
        path.unlink()
    elif kind < 0.08:
        path.unlink()
        path.mkdir()
    elif (kind < 0.7 and path.suffix == ".json") or path.name in (".zarray", ".zattrs", ".zgroup", ".zmetadata"):
        try:
            content = json.loads(path.read_bytes())
        except ValueError:
            return
        for _ in range(rng.choice((1, 1, 2))):
            content = spoilt_value(rng, content)
        path.write_text(json.dumps(content))
    else:
        path.write_bytes(spoilt_bytes(rng, path.read_bytes()))


@dataclass(frozen=True)
class Mutated:
    """What is spoilt in a folder, and the command that reads it."""

    what: str
    tokens: list[str]


def mutate(seed: int, bases: dict[int, Path], folder: Path) -> Mutated:
    """Copy a prepared folder and spoil something in it.

    Parameters
    ----------
    bases
        Folders of `prepare`, by the format of their stores.
    folder
        Where the copy goes.
    """
    rng = random.Random(seed)
    base = bases[rng.choice(sorted(bases))]
    match rng.randrange(10):
        case 0 | 1 | 2:
            _copy(base, folder, "s.zarr", "job.yaml")
            return _config(rng, folder)
        case 3 | 4 | 5:
            files = sorted(p for p in (base / "s.zarr").rglob("*") if p.is_file() and not _is_chunk(p))
            chosen = rng.choice(files)
        case 6:
            chosen = rng.choice(sorted(p for p in (base / "s.zarr").rglob("*") if p.is_file() and _is_chunk(p)))
        case _:
            _copy(base, folder, "s.zarr", "job.yaml", "finished")
            return _output(rng, folder)
    _copy(base, folder, "s.zarr", "job.yaml")
    path = folder / chosen.relative_to(base)
    spoil_file(rng, path)
    command = rng.choice((["fit", "job.yaml", "--no-prefect"], ["inspect", "job.yaml"]))
    if command[0] == "fit" and rng.random() < 0.3:
        _copy(base, folder, "finished")
        command = ["predict", "finished", "job.yaml", "--no-prefect"]
    return Mutated(str(path.relative_to(folder)), command)


def _copy(base: Path, folder: Path, *names: str) -> None:
    # Only the named parts are copied: the finished run has most files, and few commands read it.
    folder.mkdir(exist_ok=True)
    for name in names:
        if (base / name).is_dir():
            shutil.copytree(base / name, folder / name, symlinks=True, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(base / name, folder / name)


def _is_chunk(path: Path) -> bool:
    return path.name[0].isdigit()


def _config(rng: random.Random, folder: Path) -> Mutated:
    path = folder / "job.yaml"
    command = rng.choice(
        (["fit", "job.yaml", "--no-prefect"], ["fit", "job.yaml", "--no-prefect"], ["inspect", "job.yaml"])
    )
    while True:
        if rng.random() < 0.7:
            content = deepcopy(CONFIG)
            for _ in range(rng.choice((1, 1, 2, 3))):
                content = spoilt_value(rng, content)
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
        else:
            text = spoilt_bytes(rng, path.read_bytes())
        # Paths stay inside the folder, and what takes long is no mistake.
        if not any(byte in text for byte in (b"/", b"~", b"..")):
            path.write_bytes(text)
            return Mutated("job.yaml", command)


def _output(rng: random.Random, folder: Path) -> Mutated:
    finished = folder / "finished"
    files = sorted(p for p in finished.rglob("*") if p.is_file() and "html" not in p.name)
    # Most mutations spoil metadata, which are small and decide most.
    small = [p for p in files if not _is_chunk(p)]
    path = rng.choice(small if rng.random() < 0.7 else files)
    spoil_file(rng, path)
    command = rng.choice(
        (
            ["predict", "finished", "job.yaml", "--no-prefect"],
            ["predict", "finished", "job.yaml", "--no-prefect"],
            ["models", "list", "finished"],
            ["models", "show", "finished"],
            ["models", "diff", "finished", "current", "current"],
            ["models", "prune", "finished", "--keep", "1"],
            ["fit", "job.yaml", "--no-prefect", "--set", "output.store=finished", "--set", "output.overwrite=true"],
            ["fit", "job.yaml", "--no-prefect", "--set", "output.store=finished", "--set", "fit.init=model"],
            ["inspect", "job.yaml", "--set", "output.store=finished"],
            ["report", "finished"],
        )
    )
    return Mutated(str(path.relative_to(folder)), command)
