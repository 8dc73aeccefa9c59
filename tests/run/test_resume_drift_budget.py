"""A killed run whose passes go over the rows near a boundary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clustering.config import JobConfig, check_config
from clustering.run.job import run_fit
from tests.run.notes import Crash, Notes
from tests.run.test_resume import content, results, store

__all__ = ["store"]

PASSES = 12


def job(store: Path, out: Path, **fit: Any) -> JobConfig:
    """A job with room for a quarter of the rows."""
    fit = {"finalists": 1, "sample_rows": 2000, "max_iterations": PASSES, **fit}
    return check_config(content(store, out, fit=fit, compute={"memory": "288KB", "block": "24KB"}))


@pytest.fixture(scope="module")
def calm(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Notes]:
    """Output and notes of a run that nothing interrupted."""
    out, watch = tmp_path_factory.mktemp("calm") / "out", Notes()
    run_fit(job(store, out), watch)
    return out, watch


def full_reads(watch: Notes) -> list[int]:
    """Passes that were full reads."""
    return [i for i, read in zip(watch.iterations, np.diff([0.0, 1.0, *watch.reads])[1:], strict=True) if read >= 1.0]


def test_some_passes_are_full_reads_and_others_are_none(calm: tuple[Path, Notes]) -> None:
    watch = calm[1]
    assert 1 in full_reads(watch)
    assert 1 < len(full_reads(watch)) < PASSES / 2
    assert sum("near a boundary" in line for line in watch.said) == len(full_reads(watch))


@pytest.mark.parametrize("crash", [1, 2, 3, 4, 5, 7, 9, 11], ids="after-{}".format)
def test_a_run_that_is_killed_after_any_pass_goes_on_to_the_same_bytes(
    crash: int, store: Path, calm: tuple[Path, Notes], tmp_path: Path
) -> None:
    with pytest.raises(Crash):
        run_fit(job(store, tmp_path / "out"), Notes(crash))
    watch = Notes()
    run_fit(job(store, tmp_path / "out"), watch)
    assert watch.iterations == list(range(crash + 1, PASSES + 1))
    assert results(tmp_path / "out") == results(calm[0])
    # The near rows are gone with the process, so they are read once more: by the next pass, or by its forecast.
    own = 1.0 if crash + 1 in full_reads(calm[1]) else 0.0
    assert watch.reads[0] == calm[1].reads[crash - 1] + own + 1.0


def test_a_checkpoint_of_an_earlier_version_has_no_reference(store: Path, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        run_fit(job(store, tmp_path / "out"), Notes(3))
    folder = tmp_path / "out" / "checkpoints"
    newest = max(folder.iterdir())
    with np.load(newest) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(arrays.pop("meta").tobytes())
    del meta["reference"]
    arrays = {name: array for name, array in arrays.items() if not name.startswith(("reference.", "margins."))}
    meta["arrays"] = sorted(arrays)
    np.savez(newest, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
    watch = Notes()
    run_fit(job(store, tmp_path / "out"), watch)
    assert watch.iterations == list(range(4, PASSES + 1))


def test_a_job_without_acceleration_makes_plain_passes(store: Path, tmp_path: Path) -> None:
    watch = Notes()
    run_fit(job(store, tmp_path / "out", accelerate="none", max_iterations=3), watch)
    assert not any("near a boundary" in line for line in watch.said)
