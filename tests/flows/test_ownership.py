"""Every public writer refuses every place that is not its own in one line, and changes no byte."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.config import check_config
from clustering.data.ingest import ingest
from clustering.errors import ClusteringError
from clustering.run.job import run_fit, run_predict
from clustering.run.naming import name_cluster
from clustering.run.report import redo_report
from clustering.storage import versions
from clustering.storage.bucket_output import open_output
from clustering.storage.synthetic_data import write_synthetic
from clustering_flows.models import promote, prune, rollback
from tests.run.notes import Notes

ROWS = np.repeat([[0.0, 0.0], [9.0, 9.0]], 20, axis=0) + np.arange(40)[:, None] / 100


def to_zarr(path: Path, zarr_format: Any = 3, **more: Any) -> None:
    xr.Dataset({"x": (("row", "feature"), ROWS)}).to_zarr(path, zarr_format=zarr_format, consolidated=False, **more)


def config(source: Path, store: str, **output: Any) -> Any:
    return check_config(
        {
            "source": {"store": str(source), "sample_dims": ["row"]},
            "model": {"k": 2},
            "fit": {"restarts": 1},
            "output": {"store": store, "report": False, **output},
        }
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with outputs of this library beside files of others."""
    world = tmp_path_factory.mktemp("world")
    (world / "outer").mkdir()
    to_zarr(world / "outer" / "source.zarr")
    to_zarr(world / "others.zarr")
    to_zarr(world / "others-2.zarr", zarr_format=2)
    for name in ("thesis", "home"):
        (world / name).mkdir()
        (world / name / "chapter.txt").write_text("three years of work")
    (world / "letter.txt").write_text("dear")
    np.save(world / "rows.npy", ROWS)
    for name in ("ingested.zarr", "grown.zarr", "noted.zarr"):
        ingest(world / "rows.npy", world / name)
    xr.Dataset({"values": (("row", "feature"), ROWS)}).to_zarr(
        world / "grown.zarr", append_dim="row", consolidated=False
    )
    (world / "noted.zarr" / "notes.txt").write_text("mine")
    with xr.open_zarr(world / "ingested.zarr", consolidated=False) as dataset:
        dataset.to_zarr(world / "copied.zarr", consolidated=False)
    fit = c.fit(ROWS, c.KMeans(2))
    for name in ("saved.zarr", "extended.zarr"):
        fit.save(world / name)
    zarr.open_group(world / "extended.zarr").create_array("mine", data=np.arange(3))
    FIT.label(ROWS_BY_NAME, to=world / "labelled.zarr", sample_dims=["row"])
    for _ in range(2):
        run_fit(config(world / "outer" / "source.zarr", str(world / "run"), overwrite=True), Notes())
    # Folders of users with names that this library uses, and finished runs with files of users.
    for name in ("versions", "checkpoints", "current", "model.zarr"):
        (world / f"with-{name}" / name).mkdir(parents=True)
        (world / f"with-{name}" / name / "chapter.txt").write_text("three years of work")
        (world / f"linked-{name}").mkdir()
        (world / f"linked-{name}" / name).symlink_to(world / "thesis")
    shutil.copytree(world / "run", world / "run-with-notes", symlinks=True)
    (world / "run-with-notes" / "versions" / "2024-thesis").mkdir()
    (world / "run-with-notes" / "versions" / "2024-thesis" / "chapter.txt").write_text("three years of work")
    shutil.copytree(world / "run", world / "run-with-file", symlinks=True)
    (next((world / "run-with-file" / "versions").iterdir()) / "chapter.txt").write_text("three years of work")
    for name, target in (("link", "thesis"), ("link-run", "run"), ("link-saved", "saved.zarr"), ("dangling", "gone")):
        (world / name).symlink_to(target)
    return world


@pytest.fixture
def world(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    world = tmp_path / "world"
    shutil.copytree(template, world, symlinks=True)
    monkeypatch.chdir(world)
    monkeypatch.setenv("HOME", str(world / "home"))
    return world


def snapshot(world: Path) -> dict[str, Any]:
    """Every path with its inode, size and time of writing, or with the target of its link."""
    entries: dict[str, Any] = {}
    start = len(str(world)) + 1
    # Hundreds of snapshots are taken, so files are not read: none can be written without a new time or inode.
    for folder, _, _ in os.walk(world):
        with os.scandir(folder) as listing:
            for entry in listing:
                facts = entry.stat(follow_symlinks=False)
                written = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
                content = Path(entry).readlink() if entry.is_symlink() else entry.is_file() and written
                entries[entry.path[start:]] = content
    return entries


def mixture() -> Any:
    fit = c.fit(ROWS, c.GaussianMixture(2, covariance="spherical"))
    return fit.model.generative(fit.params)


ROWS_BY_NAME = xr.Dataset({"x": (("row", "feature"), ROWS)})
FIT = c.fit(ROWS_BY_NAME, c.KMeans(2), sample_dims=["row"])
MIXTURE = mixture()
SOURCE = Path("outer/source.zarr")


def last_run(place: str) -> str:
    return versions.list_versions(open_output(place))[-1].run


WRITERS: dict[str, Callable[[str], Any]] = {
    "save": lambda place: FIT.save(place),
    "save over": lambda place: FIT.save(place, overwrite=True),
    "loaded and saved over": lambda place: c.load_fit("saved.zarr").save(place, overwrite=True),
    "label": lambda place: FIT.label(SOURCE, to=place, sample_dims=["row"]),
    "label over": lambda place: FIT.label(SOURCE, to=place, sample_dims=["row"], overwrite=True),
    "ingest": lambda place: ingest("rows.npy", place),
    "ingest over": lambda place: ingest("rows.npy", place, overwrite=True),
    "draw over": lambda place: write_synthetic(MIXTURE, place, rows=10, overwrite=True),
    "fit": lambda place: run_fit(config(SOURCE, place), Notes()),
    "fit over": lambda place: run_fit(config(SOURCE, place, overwrite=True), Notes()),
    "predict over": lambda place: run_predict("saved.zarr", config(SOURCE, place, overwrite=True), Notes()),
    "report": redo_report,
    "name": lambda place: name_cluster(place, 0, "deep"),
    "promote": lambda place: promote(place, last_run(place)),
    "rollback": rollback,
    "prune": lambda place: prune(place, keep=1),
}
PLACES = [
    "", ".", "..", "/", "home", "letter.txt", "letter.txt/new", "thesis", "others.zarr", "others-2.zarr",
    "ingested.zarr", "grown.zarr", "noted.zarr", "copied.zarr", "saved.zarr", "labelled.zarr", "extended.zarr", "run",
    "outer", "outer/source.zarr", "outer/source.zarr/x", "outer/source.zarr/new.zarr", "others-2.zarr/new/er",
    "with-versions", "with-checkpoints", "with-current", "with-model.zarr",
    "linked-versions", "linked-checkpoints", "linked-current", "linked-model.zarr", "run-with-notes", "run-with-file",
    "link", "link-run", "link-saved", "dangling",
    "run/model.zarr", "run/versions", "run/checkpoints", "run/current/model.zarr", "run/new.zarr", "run/versions/new",
    "link-run/new.zarr", "link-saved/new.zarr",
]  # fmt: skip
ON_RUNS = {"fit over", "predict over", "report", "name", "promote", "rollback", "prune"}
ALLOWED = {
    *((writer, place) for writer in ON_RUNS for place in ("run", "link-run")),
    ("save over", "saved.zarr"),
    ("loaded and saved over", "saved.zarr"),
    ("label over", "labelled.zarr"),
    ("ingest over", "ingested.zarr"),
    ("draw over", "ingested.zarr"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_writer_changes_nothing_that_is_not_its_own(writer: str, world: Path) -> None:
    before, faults = snapshot(world), []
    for place in PLACES:
        if (writer, place) in ALLOWED:
            continue
        try:
            WRITERS[writer](place)
            faults.append(f"{place!r} is written to")
        except ClusteringError as error:
            faults += [f"{place!r}: {error}"] * ("\n" in str(error))
        except Exception as error:
            faults.append(f"{place!r}: {error!r}")
        after = snapshot(world)
        changed = sorted({name for name, _ in before.items() ^ after.items()})
        if changed:
            faults.append(f"{place!r} changes {changed[:3]}")
            before = after
    assert faults == []


@pytest.mark.parametrize(("writer", "place"), sorted(ALLOWED))
def test_a_writer_replaces_its_own_and_nothing_beside_it(writer: str, place: str, world: Path) -> None:
    before = snapshot(world)
    WRITERS[writer](place)
    changed = {name for name, _ in before.items() ^ snapshot(world).items()}
    assert {name.split("/")[0] for name in changed} <= {place.removeprefix("link-")}


@pytest.mark.parametrize(
    "writer", ["save", "save over", "label", "label over", "ingest", "ingest over", "draw over", "fit", "predict over"]
)
@pytest.mark.parametrize("made", [False, True], ids=["new", "empty"])
def test_a_place_of_its_own_is_written_to(writer: str, made: bool, world: Path) -> None:
    before = snapshot(world)
    if made:
        (world / "own").mkdir()
    WRITERS[writer]("own" if made else "own/deeper")
    after = snapshot(world)
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"own"}
    assert before.items() <= after.items()


def test_a_fit_that_is_refused_removes_nothing(world: Path) -> None:
    """The fit sees that k is too large only when it holds the lock of the output."""
    before = snapshot(world)
    job = config(SOURCE, "run", overwrite=True).model_copy()
    with pytest.raises(ClusteringError, match="k"):
        run_fit(job.model_copy(update={"model": job.model.model_copy(update={"k": 5000})}), Notes())
    assert snapshot(world) == before


@pytest.mark.parametrize("store", ["run", "run/deeper"])
def test_an_output_that_holds_its_source_is_refused(store: str, world: Path) -> None:
    before = snapshot(world)
    labels = {"store": "run/labels.zarr", "variables": ["labels"], "sample_dims": ["row"]}
    output = {"store": store, "overwrite": True, "report": False}
    with pytest.raises(ClusteringError, match="inside"):
        run_fit(check_config({"source": labels, "model": {"k": 2}, "output": output}), Notes())
    assert snapshot(world) == before
