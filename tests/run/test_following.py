"""Runs that follow one another in one output: only what is new is read, to the bits of reading all of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.config import JobConfig, check_config
from clustering.errors import ClusteringError
from clustering.fitting import following
from clustering.run.job import run_fit, run_predict
from clustering.storage import versions
from clustering.storage.bucket_output import open_output
from clustering.storage.ledger import FOLDER, Ledger
from tests.run.notes import Crash, Notes

DAYS, PLACES = 24, 30
MODELS: dict[str, dict[str, Any]] = {
    "kmeans": {"kind": "kmeans", "k": 4},
    "kullback_leibler": {"kind": "kmeans", "k": 3, "divergence": "kullback_leibler"},
    "soft_kmeans": {"kind": "soft_kmeans", "k": 4, "beta": 0.4},
    "full": {"kind": "gaussian_mixture", "k": 4},
    "tied": {"kind": "gaussian_mixture", "k": 3, "covariance": "tied"},
    "directions": {"kind": "von_mises_fisher", "k": 3},
}


def days(n: int, seed: int) -> np.ndarray:
    """Overlapping groups of shape ``(n, places, 3)``, so that several passes are needed."""
    rng = np.random.default_rng(seed)
    centers = np.array([[2.0, 2.0, 2.0], [6.0, 2.0, 2.0], [2.0, 6.0, 2.0], [2.0, 2.0, 6.0]])
    values = centers[rng.integers(0, 4, (n, PLACES))] + 1.3 * rng.standard_normal((n, PLACES, 3))
    return np.abs(values) + 0.01


def make(path: Path, n: int = DAYS, seed: int = 0, chunks: tuple[int, ...] = (1, PLACES, 3)) -> Path:
    data = xr.Dataset(
        {
            "x": (("day", "place", "feature"), days(n, seed)),
            "use": (("place",), np.arange(PLACES) % 7 > 0),
            "w": (("day", "place"), np.random.default_rng(seed + 1).random((n, PLACES)) + 0.5),
        },
        coords={"day": np.arange("2001-01-01", n, dtype="datetime64[D]") if n < 0 else _dates(n)},
    )
    encoding = {"x": {"chunks": chunks}, "w": {"chunks": (1, PLACES)}}
    data.to_zarr(path, consolidated=False, zarr_format=3, encoding=encoding)
    return path


def _dates(n: int, first: int = 0) -> np.ndarray:
    return (np.datetime64("2001-01-01") + np.arange(first, first + n)).astype("datetime64[ns]")


def grow(path: Path, n: int = 1, seed: int = 100) -> None:
    """Append days."""
    with xr.open_zarr(path, consolidated=False) as before:
        first = before.sizes["day"]
    more = xr.Dataset(
        {
            "x": (("day", "place", "feature"), days(n, seed)),
            "w": (("day", "place"), np.random.default_rng(seed).random((n, PLACES)) + 0.5),
        },
        coords={"day": _dates(n, first)},
    )
    more.to_zarr(path, append_dim="day", consolidated=False)


def job(store: Path, out: Path, kind: str = "kmeans", **sections: dict[str, Any]) -> JobConfig:
    content: dict[str, Any] = {
        "source": {"store": str(store), "variables": ["x"], "sample_dims": ["day", "place"], "weights": "w"},
        "model": MODELS[kind],
        "fit": {"init": "model", "restarts": 2, "sample_rows": 300},
        # Blocks of a day each.
        "compute": {"workers": 2, "block": "720B"},
        "output": {"store": str(out), "report": False},
    }
    return check_config({key: {**content.get(key, {}), **sections.get(key, {})} for key in {**content, **sections}})


def read(out: Path, name: str = "model.zarr") -> xr.Dataset:
    with xr.open_dataset(str(out / name), engine="zarr", consolidated=False, chunks=None) as dataset:
        return dataset.load()


def bits(out: Path) -> dict[str, bytes]:
    """The bytes of each variable in the model and the labels of an output."""
    model, labels = read(out), read(out, "labels.zarr")
    return {str(n): v.values.tobytes() for part in (model, labels) for n, v in part.variables.items()}


def without_ledger(out: Path, copy: Path) -> Path:
    """Copy an output without the ledger of its blocks."""
    shutil.copytree(out, copy, symlinks=True)
    for ledger in copy.glob(f"versions/*/{FOLDER}"):
        shutil.rmtree(ledger)
    return copy


def test_an_unchanged_store_costs_no_read(tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    first = run_fit(job(store, out), Notes())
    before = bits(out)
    # The chunks as they are before the second run.
    kept = {p: p.read_bytes() for p in (store / "x" / "c").rglob("*") if p.is_file()}
    watch = Notes()
    record = run_fit(job(store, out), watch)
    assert first["reads"] == 1
    assert (record["reads"], record["bytes_read"], record["iterations"]) == (0, 0, 0)
    assert record["followed"] == {
        "run": first["run"], "refresh": "full", "blocks": DAYS, "new": 0, "changed": 0, "unchanged": DAYS, "gone": 0,
        "where": {}, "told": f"nothing is new in {DAYS} blocks",
    }  # fmt: skip
    assert record["objective"] == pytest.approx(first["objective"], rel=1e-12)
    after = bits(out)
    assert not any(after.pop("changed"))
    # No pass was made, and so there is no history of any.
    assert all(after[name] == content for name, content in before.items() if name not in ("history", "track_sizes"))
    assert all(p.read_bytes() == content for p, content in kept.items())
    assert any("nothing is new" in line for line in watch.said)


def test_quiet_nights_do_not_push_other_versions_out(tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    keep: dict[str, Any] = {"output": {"keep": 2}}
    first = run_fit(job(store, out, **keep), Notes())["run"]
    change_a_chunk(store)
    second = run_fit(job(store, out, **keep), Notes())["run"]
    quiet = [run_fit(job(store, out, output={"keep": 2, "publish": "manual"}), Notes()) for _ in range(3)]
    assert [record["status"] for record in quiet] == ["finished"] * 3
    assert [record["repeats"] for record in quiet] == [second, *(record["run"] for record in quiet[:2])]
    left = {version.run for version in versions.list_versions(open_output(str(out)))}
    assert left == {first, quiet[1]["run"], quiet[2]["run"]}
    # A run that asks for more label outputs gets a version of its own.
    assert run_fit(job(store, out, output={"keep": 2, "distance": True}), Notes())["repeats"] is None
    previous = versions.find_version(open_output(str(out)), "previous").run
    assert previous == quiet[2]["run"]


@pytest.mark.parametrize(
    "model", [name if name in ("kmeans", "full") else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_the_update_after_growth_is_that_of_a_pass_over_all_rows(model: str, tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    run_fit(job(store, out, model), Notes())
    other = without_ledger(out, tmp_path / "other")
    grow(store)
    watch, full = Notes(), Notes()
    record = run_fit(job(store, out, model, fit={"refresh": "new-only"}), watch)
    whole = run_fit(job(store, other, model, fit={"refresh": "new-only"}), full)
    assert record["followed"]["new"] == 1
    assert record["followed"]["where"] == {"day": ["2001-01-25T00:00:00"] * 2}
    assert "blocks" not in whole["followed"]
    assert (watch.iterations, watch.reads) == ([1], [1 / (DAYS + 1)])
    assert (full.iterations, full.reads) == ([1], [1])
    # The label pass uses the updated model, so it needs all rows. It reads those that the fit did not read.
    assert record["reads"] == whole["reads"] == 1
    assert bits(out) == bits(other)
    assert record["objective"] == whole["objective"]


def test_growth_inside_and_along_a_later_dimension_keeps_the_bits(tmp_path: Path) -> None:
    """Blocks then have other numbers, and the farthest rows have other positions."""
    values = days(6, 0)
    store = tmp_path / "store.zarr"
    group = zarr.create_group(store)
    dims = ("place", "day", "feature")
    array = group.create_array(
        "x", data=values.transpose(1, 0, 2), chunks=(PLACES, 1, 3), dimension_names=dims, attributes={"history": "a"}
    )
    sections: Any = {
        "source": {"sample_dims": ["place", "day"], "weights": None},
        "model": {"kind": "kmeans", "k": 40},
        "fit": {"init": "random", "restarts": 1, "max_iterations": 2, "seed": 3},
    }
    out = tmp_path / "out"
    run_fit(job(store, out, **{**sections, "fit": {**sections["fit"], "init": "model"}}), Notes())
    other = without_ledger(out, tmp_path / "other")
    array.resize((PLACES, 7, 3))
    array[:, 6] = days(1, 9)[0]
    array.attrs["history"] = "b"
    follow = {**sections, "fit": {"init": "model", "refresh": "new-only"}}
    record = run_fit(job(store, out, **follow), Notes())
    run_fit(job(store, other, **follow), Notes())
    assert record["followed"]["new"] == 1
    assert record["followed"]["unchanged"] == 6
    assert bits(out) == bits(other)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[str | dict[str, str]]:
    """The `compute.cluster` of a job. Worker processes are started once, for both runs."""
    if request.param == "synchronous":
        yield "synchronous"
        return
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as started:
        yield {"address": started.scheduler_address}


@pytest.mark.parametrize("cluster", ["synchronous", pytest.param("workers", marks=pytest.mark.slow)], indirect=True)
def test_bits_do_not_depend_on_who_carries_it_out(cluster: str | dict[str, str], tmp_path: Path) -> None:
    outs = []
    where: Any
    for name, where in (("one", "threads"), ("two", cluster)):
        store, out = make(tmp_path / f"{name}.zarr"), tmp_path / name
        compute = {"cluster": where, "workers": 2 if where != "synchronous" else None}
        few = {"max_iterations": 6}
        run_fit(job(store, out, "full", compute=compute, fit=few), Notes())
        grow(store, 2)
        zarr.open_group(store)["x"][5] = days(1, 55)[0]
        record = run_fit(job(store, out, "full", compute=compute, fit=few), Notes())
        assert (record["followed"]["new"], record["followed"]["changed"]) == (2, 1)
        outs.append(bits(out))
    assert outs[0] == outs[1]


def change_a_chunk(store: Path) -> None:
    zarr.open_group(store)["x"][3] = days(1, 77)[0]


def lose_a_chunk(store: Path) -> None:
    (store / "x" / "c" / "3" / "0" / "0").unlink()


def change_weights(store: Path) -> None:
    zarr.open_group(store)["w"][3] = 2.0


def change_the_mask(store: Path) -> None:
    zarr.open_group(store)["use"][0] = True


CHANGES: dict[str, tuple[Callable[[Path], None], int]] = {
    "chunk": (change_a_chunk, 1), "lost": (lose_a_chunk, 1), "weights": (change_weights, 1),
    "mask": (change_the_mask, DAYS),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:1 of 24 chunks:clustering.ClusteringWarning")
@pytest.mark.parametrize(("change", "blocks"), CHANGES.values(), ids=CHANGES)
def test_what_was_written_anew_is_read_again(change: Callable[[Path], None], blocks: int, tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    more = {"mask": "use", "missing_chunks": "mask"}
    run_fit(job(store, out, source=more), Notes())
    change(store)
    record = run_fit(job(store, out, source=more, fit={"refresh": "none"}), Notes())
    assert record["followed"]["changed"] == blocks
    assert record["reads"] == round(blocks / DAYS, 6)
    assert (record["stop_reason"], record["iterations"]) == ("refresh", 0)
    # The labels are those of the model for the rows of today.
    options = {"variables": ["x"], "sample_dims": ["day", "place"], "weights": "w", "mask": "use"}
    expected = c.load_fit(out / "model.zarr").predict(store, **options, missing_chunks="mask")
    np.testing.assert_array_equal(read(out, "labels.zarr")["labels"], expected)


def test_passes_go_on_until_nothing_changes(tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    run_fit(job(store, out), Notes())
    grow(store, 8)
    record = run_fit(job(store, out), Notes())
    assert record["stop_reason"] == "converged"
    fit = c.load_fit(out / "model.zarr")
    options = {"variables": ["x"], "sample_dims": ["day", "place"], "weights": "w"}
    again = c.fit(store, c.KMeans(4), init=fit.centers.values, **options)
    np.testing.assert_allclose(again.centers, fit.centers, rtol=1e-12)
    assert record["n_rows"] == (DAYS + 8) * PLACES
    # A run goes on where the previous one stopped at its limit, although nothing is new.
    grow(store, 8, 200)
    short = run_fit(job(store, out, fit={"max_iterations": 1}), Notes())
    assert short["stop_reason"] == "max_iterations"
    long = run_fit(job(store, out), Notes())
    assert (long["followed"]["new"], long["stop_reason"]) == (0, "converged")
    assert long["iterations"] > 0


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, dict[str, Any]]:
    """A store that has grown, the output from before that, the same output after a calm run, and its record."""
    folder = tmp_path_factory.mktemp("grown")
    store, calm, before = make(folder / "store.zarr"), folder / "calm", folder / "before"
    run_fit(job(store, calm, "full"), Notes())
    shutil.copytree(calm, before, symlinks=True)
    grow(store, 3)
    return store, before, calm, run_fit(job(store, calm, "full"), Notes())


@pytest.mark.slow
@pytest.mark.parametrize("step", ["open", "sample", "fit", "label"])
def test_a_killed_run_goes_on_to_the_same_bits(
    step: str, grown: tuple[Path, Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    store, before, calm, whole = grown
    out = tmp_path / "out"
    shutil.copytree(before, out, symlinks=True)

    def dying(name: str, work: Callable[[], Any]) -> Any:
        result = work()
        if name == step:
            raise Crash
        return result

    with pytest.raises(Crash):
        run_fit(job(store, out, "full"), Notes(), dying)
    if step in ("open", "sample"):
        with pytest.raises(Crash):
            run_fit(job(store, out, "full"), Notes(2))
    record = run_fit(job(store, out, "full"), Notes())
    assert bits(out) == bits(calm)
    assert record["objective"] == whole["objective"]
    assert record["followed"] == whole["followed"]


def test_an_unfinished_run_over_an_older_store_is_given_up(tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    run_fit(job(store, out), Notes())
    grow(store, 3)
    with pytest.raises(Crash):
        run_fit(job(store, out), Notes(2))
    grow(store, 1, 300)
    watch = Notes()
    record = run_fit(job(store, out), watch)
    assert any("another source" in line and "begins anew" in line for line in watch.said)
    assert record["followed"]["new"] == 4
    assert record["n_rows"] == (DAYS + 4) * PLACES


def test_a_damaged_record_costs_the_read_of_its_block(tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    run_fit(job(store, out), Notes())
    first = sorted((out / "current" / FOLDER).glob("*-*"))[0]
    first.write_bytes(first.read_bytes()[:-1])
    record = run_fit(job(store, out, fit={"refresh": "none"}), Notes())
    assert record["reads"] == round(1 / DAYS, 6)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"k": 5}}, "asks for KMeans"),
        ({"model": {"kind": "gaussian_mixture", "k": 4}}, "asks for GaussianMixture"),
        ({"preprocess": {"standardize": "per_feature"}}, "preprocess.standardize"),
        ({"source": {"variables": ["y"]}}, "fitted on"),
    ],
)
def test_another_model_is_not_gone_on_from(sections: Any, said: str, tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    run_fit(job(store, out), Notes())
    zarr.open_group(store).create_array(
        "y", data=days(DAYS, 4), chunks=(1, PLACES, 3), dimension_names=("day", "place", "feature")
    )
    before = (out / "run.json").read_text()
    with pytest.raises(ClusteringError, match=said) as caught:
        run_fit(job(store, out, **sections), Notes())
    assert "\n" not in str(caught.value)
    assert (out / "run.json").read_text() == before


def test_large_statistics_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clustering.run import following as flow_following

    monkeypatch.setattr(flow_following, "LITTLE", 0)
    monkeypatch.setattr(flow_following, "STATISTICS_SHARE", 0.0)
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    run_fit(job(store, out), Notes())
    assert json.loads((out / "current" / FOLDER / "wish.json").read_text())["statistics"] is False
    grow(store)
    record = run_fit(job(store, out, fit={"refresh": "new-only"}), Notes())
    assert record["reads"] == 1
    assert following.statistics_bytes(c.load_fit(out / "model.zarr").params) > 4 * 3 * 8


# Held-out blocks

GATE: dict[str, Any] = {"output": {"publish": "gate"}}


def test_held_out_blocks_are_never_seen_by_a_fit_and_score_it(tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    first = run_fit(job(store, out, "full", **GATE), Notes())
    held = np.arange(DAYS) % 10 == 5
    assert (first["comparison"], first["n_fitted"]) == (None, PLACES * int((~held).sum()))
    before = c.load_fit(out / "model.zarr")
    # Rows that no fit may see leave the model as it is, to the last bit.
    other, again = tmp_path / "other.zarr", tmp_path / "again"
    shutil.copytree(store, other)
    zarr.open_group(other)["x"][5] = 1000.0
    run_fit(job(other, again, "full", **GATE), Notes())
    np.testing.assert_array_equal(read(again)["params_centers"], read(out)["params_centers"])
    grow(store, 5)
    record = run_fit(job(store, out, "full", **GATE), Notes())
    after = c.load_fit(out / "model.zarr")
    rows = {"variables": ["x"], "sample_dims": ["day", "place"], "weights": "w"}
    shown = {**rows, "isel": {"day": np.flatnonzero(np.arange(DAYS + 5) % 10 == 5).tolist()}}
    scored = record["comparison"]["held_out"]
    assert scored["rows"] == 3 * PLACES
    assert scored["objective"] == pytest.approx(after.score(store, **shown), rel=1e-12)
    assert scored["objective_before"] == pytest.approx(before.score(store, **shown), rel=1e-12)
    assert record["gate"]["unchecked"] == []
    unchanged = run_fit(job(store, out, "full", **GATE), Notes())["comparison"]["held_out"]
    assert unchanged["objective"] == unchanged["objective_before"] == scored["objective"]


def test_a_model_that_does_worse_on_them_is_held_and_the_next_run_goes_on_from_the_current_one(tmp_path: Path) -> None:
    store, out = make(tmp_path / "store.zarr"), tmp_path / "out"
    first = run_fit(job(store, out, "full", **GATE), Notes())
    group = zarr.open_group(store)
    for day in range(10, 20):
        if day % 10 != 5:
            group["x"][day] = 40.0 + days(1, 500 + day)[0]
    watch = Notes()
    record = run_fit(job(store, out, "full", **GATE), watch)
    assert record["status"] == "held"
    assert any("held-out rows is worse" in reason for reason in record["gate"]["reasons"])
    assert [name for name, _ in watch.events][-1] == "model.held"
    assert json.loads((out / "run.json").read_text())["run"] == first["run"]
    again = run_fit(job(store, out, "full", **GATE), Notes())
    assert again["followed"]["run"] == first["run"]
    assert again["status"] == "held"


# Predictions


def test_a_prediction_labels_only_what_is_new(tmp_path: Path) -> None:
    store, fitted, out = make(tmp_path / "store.zarr"), tmp_path / "fitted", tmp_path / "out"
    run_fit(job(store, fitted, fit={"init": "kmeans++"}), Notes())
    config = job(store, out, output={"distance": True})
    first = run_predict(str(fitted), config, Notes())
    assert first["reads"] == 1
    unchanged = run_predict(str(fitted), config, Notes())
    assert (unchanged["reads"], unchanged["bytes_read"]) == (0, 0)
    grow(store, 2)
    change_a_chunk(store)
    record = run_predict(str(fitted), config, Notes())
    assert record["reads"] == round(3 / (DAYS + 2), 6)
    assert (record["followed"]["new"], record["followed"]["changed"]) == (2, 1)
    assert record["n_rows"] == (DAYS + 2) * PLACES
    fresh = run_predict(str(fitted), job(store, tmp_path / "fresh", output={"distance": True}), Notes())
    assert {name: content for name, content in bits(out).items() if name != "changed"} == bits(tmp_path / "fresh")
    assert record["objective"] == fresh["objective"]


def test_another_model_or_wish_labels_all_of_it(tmp_path: Path) -> None:
    store, fitted, out = make(tmp_path / "store.zarr"), tmp_path / "fitted", tmp_path / "out"
    run_fit(job(store, fitted, fit={"init": "kmeans++"}), Notes())
    run_predict(str(fitted), job(store, out), Notes())
    assert run_predict(str(fitted), job(store, out, output={"margin": True}), Notes())["reads"] == 1
    assert run_predict(str(fitted), job(store, out, output={"margin": True}), Notes())["reads"] == 0
    run_fit(
        job(store, fitted, fit={"init": "kmeans++", "seed": 5, "max_iterations": 1}, output={"overwrite": True}),
        Notes(),
    )
    assert run_predict(str(fitted), job(store, out, output={"margin": True}), Notes())["reads"] == 1
    labels = read(out, "labels.zarr")["labels"]
    options = {"variables": ["x"], "sample_dims": ["day", "place"], "weights": "w"}
    np.testing.assert_array_equal(labels, c.load_fit(fitted / "model.zarr").predict(store, **options))


def test_a_prediction_that_was_stopped_goes_on_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, fitted, out = make(tmp_path / "store.zarr"), tmp_path / "fitted", tmp_path / "out"
    run_fit(job(store, fitted, fit={"init": "kmeans++"}), Notes())
    config = job(store, out, compute={"cluster": "synchronous", "workers": None})
    keep = Ledger.save

    def stopping(self: Ledger, index: int, statistics: Any) -> None:
        if len(self) == 7:
            raise Crash
        keep(self, index, statistics)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "save", stopping)
        with pytest.raises(Crash):
            run_predict(str(fitted), config, Notes())
    (version,) = (out / "versions").iterdir()
    watch = Notes()
    record = run_predict(str(fitted), config, watch)
    assert record["run"] == version.name
    assert record["reads"] == round((DAYS - 7) / DAYS, 6)
    assert any("7 of 24 blocks are labelled already" in line for line in watch.said)
    run_predict(str(fitted), job(store, tmp_path / "calm"), Notes())
    assert bits(out) == bits(tmp_path / "calm")
