from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from cyclopts import App
from s3 import Bucket

import clustering as c
from clustering.config import JobConfig, check_config
from clustering.errors import ConfigError, OutputError
from clustering.run.job import run_fit, run_predict
from clustering.run.naming import name_cluster
from clustering.run.report import redo_report
from clustering.storage.ledger import Ledger
from clustering.storage.paths import storage_path, zarr_store
from clustering_flows.cli import run
from clustering_flows.models import name
from clustering_flows.tables import summary_lines
from tests.run.notes import Crash, Notes

PLACES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
Y, X = 24, 20


def field(path: Path, rows: int = Y, seed: int = 0, start: int = 0) -> Path:
    """Cells in blobs on the map, with features around four places, weights and a mask."""
    rng = np.random.default_rng(seed)
    y = np.arange(start, start + rows)
    kinds = (y[:, None] // 6 + np.arange(X) // 5) % 4
    data = xr.Dataset(
        {
            "a": (("y", "x"), PLACES[kinds, 0] + rng.standard_normal(kinds.shape)),
            "b": (("y", "x"), PLACES[kinds, 1] + rng.standard_normal(kinds.shape)),
            "use": (("y", "x"), rng.random(kinds.shape) > 0.2),
            "w": (("y", "x"), rng.random(kinds.shape)),
        },
        {"y": y.astype(float), "x": np.arange(X) * 2.0},
    )
    data.to_zarr(path, consolidated=False, zarr_format=3, encoding={n: {"chunks": (6, X)} for n in ("a", "b")})
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return field(tmp_path_factory.mktemp("field") / "field.zarr")


Make = Callable[..., JobConfig]


@pytest.fixture
def config(store: Path, tmp_path: Path) -> Make:
    """Makes configs that cluster the field into ``tmp_path / out`` and overwrite what is there."""

    def make(**sections: Any) -> JobConfig:
        content: dict[str, Any] = {
            "source": {
                "store": str(store), "variables": ["a", "b"], "sample_dims": ["y", "x"], "mask": "use", "weights": "w",
            },
            "model": {"k": 4},
            "compute": {"workers": 2, "block": "2KB"},
            "output": {"store": str(tmp_path / "out"), "report": False, "overwrite": True},
        }  # fmt: skip
        for section, keys in sections.items():
            content.setdefault(section, {}).update(keys)
        return check_config(content)

    return make


def read_labels(out: object) -> xr.Dataset:
    # This path does not use fsspec, which caches listings.
    with xr.open_zarr(zarr_store(storage_path(f"{out}/labels.zarr")), consolidated=False, chunks=None) as opened:
        return opened.load()


def churn_of(before: xr.DataArray, now: xr.DataArray, weights: xr.DataArray) -> tuple[float, dict[str, float]]:
    """Churn in total and by cluster, cell by cell."""
    earlier = before.reindex_like(now, fill_value=-1)
    both = (earlier.values >= 0) & (now.values >= 0)
    w = np.where(both, weights.reindex_like(now).values, 0.0)
    moved = both & (earlier.values != now.values)
    by_cluster = {
        str(i): float(w[moved & (earlier.values == i)].sum() / w[earlier.values == i].sum())
        for i in np.unique(earlier.values[both])
    }
    return float(w[moved].sum() / w.sum()), by_cluster


def compare(record: dict[str, Any], expected: tuple[float, dict[str, float]]) -> None:
    comparison = record["comparison"]
    assert comparison["churn"] == pytest.approx(expected[0], rel=1e-12)
    assert comparison["churn_by_cluster"] == pytest.approx(expected[1], rel=1e-12)


def test_a_fit_from_scratch_with_another_seed_keeps_the_labels(config: Make, tmp_path: Path) -> None:
    first = run_fit(config(), Notes())
    assert first["comparison"] is None
    labels = read_labels(tmp_path / "out")
    assert "changed" not in labels
    model = c.load_fit(tmp_path / "out")
    for seed in (3, 8):
        record = run_fit(config(fit={"seed": seed, "init": "random"}), Notes())
        again = read_labels(tmp_path / "out")
        np.testing.assert_array_equal(again["labels"], labels["labels"])
        assert again["labels"].attrs == labels["labels"].attrs
        np.testing.assert_array_equal(again["changed"], np.where(labels["labels"] < 0, -1, 0))
        refit = c.load_fit(tmp_path / "out")
        assert refit.ids.tolist() == [0, 1, 2, 3]
        np.testing.assert_allclose(refit.centers, model.centers, rtol=1e-12)
        assert record["comparison"]["churn"] == 0.0
        assert (record["comparison"]["new_clusters"], record["comparison"]["lost_clusters"]) == ([], [])


def test_what_changed_is_reported_cell_by_cell(config: Make, store: Path, tmp_path: Path) -> None:
    options = {"variables": ["a", "b"], "sample_dims": ["y", "x"], "mask": "use", "weights": "w"}
    first = run_fit(config(model={"k": 3}), Notes())
    before = read_labels(tmp_path / "out")["labels"]
    shares = c.load_fit(tmp_path / "out").fitted.shares
    # Some samples are new, some are gone, and one cluster splits.
    watch, later = (
        Notes(),
        config(model={"k": 4}, source={"isel": {"y": {"start": 3}}}, output={"responsibilities": "none"}),
    )
    record = run_fit(later, watch)
    now = read_labels(tmp_path / "out")
    with xr.open_zarr(store, consolidated=False, chunks=None) as data:
        weights = data["w"].load()
    compare(record, churn_of(before, now["labels"], weights))
    comparison = record["comparison"]
    assert comparison["with"] == first["run"]
    assert 0.1 < comparison["churn"] < 0.9
    earlier = before.reindex_like(now["labels"])
    expected = np.where((earlier < 0) | (now["labels"] < 0), -1, earlier != now["labels"])
    np.testing.assert_array_equal(now["changed"], expected)
    assert now["changed"].dtype == np.int8
    assert now["changed"].attrs["flag_values"] == [0, 1]
    assert now["changed"].attrs["flag_meanings"] == "same changed"
    fit = c.load_fit(tmp_path / "out")
    after = dict(zip(fit.ids.tolist(), fit.fitted.shares.tolist(), strict=True))
    sizes = {str(i): [float(shares[i]) if i < 3 else 0.0, after.get(i, 0.0)] for i in {0, 1, 2, *after}}
    assert comparison["sizes"] == sizes
    assert comparison["largest_size_change"] == max(abs(b - a) for a, b in sizes.values())
    assert comparison["new_clusters"] == sorted(set(after) - {0, 1, 2})
    assert comparison["lost_clusters"] == sorted({0, 1, 2} - set(after))
    assert comparison["held_out"] is None
    # Labels that this model predicts have the same ids.
    predicted = fit.predict(store, isel={"y": {"start": 3}}, **options)
    np.testing.assert_array_equal(predicted, now["labels"])
    assert predicted.attrs["flag_values"] == fit.ids.tolist() == now["labels"].attrs["flag_values"]
    line = next(line for line in summary_lines(record) if line.startswith("changed"))
    assert f"{100 * comparison['churn']:.3g} % of the weight has another label than in run {first['run']}" in line
    assert "new: " in line


def test_ids_and_not_places_are_shown_everywhere(config: Make, store: Path, tmp_path: Path) -> None:
    run_fit(config(model={"kind": "gaussian_mixture", "k": 3}), Notes())
    # Ids do not go on if the kind of model changes, even if the kind of covariance stays.
    run_fit(config(model={"kind": "kmeans", "k": 4}), Notes())
    watch = Notes()
    job = config(output={"distances": True, "report": True}, fit={"seed": 4})
    run_fit(job, watch)
    assert c.load_fit(tmp_path / "out").ids.tolist() == [3, 4, 5, 6]
    record = run_fit(
        config(
            model={"kind": "soft_kmeans", "beta": 1.0},
            output={"responsibilities": "top", "distances": True, "report": True},
        ),
        watch,
    )
    ids = [7, 8, 9, 10]
    assert "labels start anew at 7: the model was kmeans and is soft_kmeans" in record["remarks"]
    assert "labels start anew at 7: the model was kmeans and is soft_kmeans" in watch.said
    now = read_labels(tmp_path / "out")
    assert set(np.unique(now["labels"])) == {-1, *ids}
    assert set(np.unique(now["top_clusters"])) == {-1, *ids}
    np.testing.assert_array_equal(now["top_clusters"][..., 0], now["labels"])
    assert now["cluster"].values.tolist() == ids
    own = now["distances"].sel(cluster=now["labels"].clip(7))
    np.testing.assert_array_equal(own.where(now["labels"] >= 0), now["distances"].min("cluster"))
    with xr.open_zarr(tmp_path / "out" / "model.zarr", consolidated=False) as model:
        assert model["cluster"].values.tolist() == ids
        assert model.attrs["largest_id"] == 10
    fit = c.load_fit(tmp_path / "out")
    degrees = fit.responsibilities(store, variables=["a", "b"], sample_dims=["y", "x"])
    assert degrees["cluster"].values.tolist() == ids
    page = (tmp_path / "out" / "report.html").read_text()
    listed = re.findall(r"</i>(\d+)</th>", page.partition('id="changes"')[0])
    assert list(map(int, listed)) == ids
    assert "What changed" in page
    assert "Changed cells" in page
    compare(record, (1.0, {str(i): 1.0 for i in range(3, 7)}))


def test_ids_of_a_version_that_is_held_are_not_given_again(config: Make, tmp_path: Path) -> None:
    run_fit(config(model={"kind": "gaussian_mixture", "k": 2}), Notes())
    held = run_fit(config(model={"k": 3}, output={"publish": "manual"}), Notes())
    assert (held["status"], held["largest_id"]) == ("waiting", 4)
    record = run_fit(config(model={"k": 3}, fit={"seed": 5}), Notes())
    assert record["comparison"]["new_clusters"] == c.load_fit(tmp_path / "out").ids.tolist() == [5, 6, 7]


def test_labelling_with_a_model_uses_its_ids(config: Make, store: Path, tmp_path: Path) -> None:
    run_fit(config(model={"k": 4}), Notes())
    run_fit(config(model={"kind": "soft_kmeans"}), Notes())
    other = config(output={"store": str(tmp_path / "labelled")})
    assert run_predict(str(tmp_path / "out"), other, Notes())["comparison"] is None
    labels = read_labels(tmp_path / "labelled")["labels"]
    assert set(np.unique(labels)) == {-1, 4, 5, 6, 7}
    np.testing.assert_array_equal(labels, read_labels(tmp_path / "out")["labels"])
    assert c.load_fit(tmp_path / "labelled").ids.tolist() == [4, 5, 6, 7]
    again = run_predict(str(tmp_path / "out"), other, Notes())
    assert again["comparison"]["churn"] == 0.0
    assert (read_labels(tmp_path / "labelled")["changed"] <= 0).all()


def test_without_labels_before_or_now_sizes_are_compared_all_the_same(config: Make, tmp_path: Path) -> None:
    silent = {"labels": False}
    run_fit(config(output=silent), Notes())
    record = run_fit(config(), Notes())
    assert (record["comparison"]["churn"], record["comparison"]["churn_by_cluster"]) == (None, {})
    assert list(record["comparison"]["sizes"]) == ["0", "1", "2", "3"]
    assert "changed" not in read_labels(tmp_path / "out")
    assert any(line.startswith("changed    compared with run") for line in summary_lines(record))
    record = run_fit(config(output={"changed": False}), Notes())
    assert record["comparison"]["churn"] == 0.0
    assert "changed" not in read_labels(tmp_path / "out")
    # At a fixed point of k-means, nothing is labelled if the config asks for no labels.
    assert run_fit(config(output=silent), Notes())["comparison"]["churn"] is None


def test_a_version_before_that_cannot_be_read_ends_in_one_line(config: Make, tmp_path: Path) -> None:
    run_fit(config(), Notes())
    (tmp_path / "out" / "current" / "model.zarr" / "zarr.json").write_text("nonsense")
    with pytest.raises(OutputError, match=r"the version before, of run .* cannot be read") as caught:
        run_fit(config(), Notes())
    assert "\n" not in str(caught.value)


def test_a_killed_label_pass_goes_on_to_the_same_bits(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = {"model": {"k": 5}, "fit": {"seed": 1}}
    for out in ("out", "calm"):
        run_fit(config(output={"store": str(tmp_path / out)}), Notes())
    calm = run_fit(config(output={"store": str(tmp_path / "calm")}, **later), Notes())
    keep = Ledger.save

    def limited(self: Ledger, index: int, statistics: Any) -> None:
        if len(self) == 2:
            raise Crash
        keep(self, index, statistics)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "save", limited)
        with pytest.raises(Crash):
            run_fit(config(compute={"cluster": "synchronous"}, **later), Notes())
    watch = Notes()
    record = run_fit(config(**later), watch)
    assert any(re.fullmatch("2 of . blocks are labelled already", line) for line in watch.said)
    compared, expected = ({**r["comparison"], "with": None} for r in (record, calm))
    assert json.dumps(compared) == json.dumps(expected)
    assert compared["churn"] > 0.0
    assert read_labels(tmp_path / "out").identical(
        read_labels(tmp_path / "calm").assign_attrs(read_labels(tmp_path / "out").attrs)
    )


@pytest.mark.parametrize("cluster", ["synchronous", pytest.param("local", marks=pytest.mark.slow)])
def test_churn_has_the_same_bits_whatever_the_workers(cluster: str, config: Make, tmp_path: Path) -> None:
    comparisons = []
    for out, where, workers in (("one", "threads", 3), ("other", cluster, 2)):
        output = {"store": str(tmp_path / out)}
        run_fit(config(output=output, model={"k": 3}), Notes())
        record = run_fit(config(output=output, model={"k": 6}, compute={"cluster": where, "workers": workers}), Notes())
        comparisons.append(json.dumps({**record["comparison"], "with": None}))
    assert comparisons[0] == comparisons[1]


def test_names_and_colours_follow_their_clusters(config: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_fit(config(output={"report": True}), Notes())
    assert "deep convection" in name_cluster(str(out), 2, "deep  convection", "#12AB9f")
    name_cluster(str(out), 0, "Rand & Küste")
    assert json.loads((out / "names.json").read_text()) == {
        "0": {"name": "Rand & Küste", "colour": None},
        "2": {"name": "deep convection", "colour": "#12ab9f"},
    }
    attributes = read_labels(out)["labels"].attrs
    assert attributes["flag_meanings"] == "Rand_Küste cluster_1 deep_convection cluster_3"
    assert attributes["flag_colors"] == "#3f90da #ffa90e #12ab9f #832db6"
    assert "2 deep convection</th>" in (out / "report.html").read_text()
    assert "background: #12ab9f" in (out / "report.html").read_text()
    # Later runs find names by id. An unmatched cluster has no name. A new name keeps the colour.
    record = run_fit(config(fit={"seed": 6}, output={"report": True}), Notes())
    assert read_labels(out)["labels"].attrs == attributes
    assert record["names"] == {"0": "Rand & Küste", "2": "deep convection"}
    assert "names      0 Rand & Küste; 2 deep convection" in list(summary_lines(record))
    assert "0 Rand &amp; Küste</th>" in (out / "report.html").read_text()
    name_cluster(str(out), 2, "shallow")
    assert json.loads((out / "names.json").read_text())["2"] == {"name": "shallow", "colour": "#12ab9f"}
    redo_report(str(out))
    assert "2 shallow</th>" in (out / "report.html").read_text()
    record = run_fit(config(model={"kind": "gaussian_mixture"}), Notes())
    assert "names" not in record
    assert "flag_colors" not in read_labels(out)["labels"].attrs


def test_the_command_gives_names(config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    run_fit(config(), Notes())
    app = App(result_action="return_value")
    app.command(name)
    app(["name", out, "3", "deep convection", "--colour", "#1f77b4"], exit_on_error=False)
    assert capsys.readouterr().out == f"cluster 3 of {out} is 'deep convection'\n"
    assert read_labels(out)["labels"].attrs["flag_meanings"].split()[3] == "deep_convection"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((9, "x"), ConfigError, "has no cluster 9; its clusters are 0, 1, 2, 3"),
        ((-1, "x"), ConfigError, "has no cluster -1; its clusters are 0, 1, 2, 3"),
        ((1, "  "), ConfigError, "the name of cluster 1 is empty"),
        ((1, "warm_pool"), ConfigError, "'warm_pool' is the name of cluster 0 already"),
        ((1, "cluster 3"), ConfigError, "'cluster 3' is the name of cluster 3 already"),
        ((1, "x", "blurple"), ConfigError, "colour is 'blurple'; six hexadecimal digits are needed"),
    ],
    ids=["unknown", "masked", "empty", "duplicate", "default of another", "no colour"],
)
def test_mistakes_in_names_end_in_one_line(
    arguments: tuple[Any, ...], error: type[Exception], message: str, config: Make, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    run_fit(config(), Notes())
    name_cluster(out, 0, "warm pool")
    before = (tmp_path / "out" / "names.json").read_bytes()
    with pytest.raises(error, match=re.escape(message)) as caught:
        name_cluster(out, *arguments)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out" / "names.json").read_bytes() == before


def test_no_run_and_no_names_end_in_one_line(config: Make, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no finished run at"):
        name_cluster(str(tmp_path / "nothing"), 0, "x")
    run_fit(config(), Notes())
    (tmp_path / "out" / "names.json").write_text('{"0": "deep"}')
    with pytest.raises(OutputError, match="does not hold names by id"):
        name_cluster(str(tmp_path / "out"), 0, "x")


@pytest.mark.slow
def test_a_bucket_keeps_ids_names_and_churn_as_a_folder_does(
    config: Make, bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = []
    for out in (str(tmp_path / "out"), f"{bucket.url}/out"):
        output = {"store": out, "report": True}
        run_fit(config(output=output, model={"k": 3}), Notes())
        name_cluster(out, 1, "deep convection", "#123456")
        assert read_labels(out)["labels"].attrs["flag_meanings"] == "cluster_0 deep_convection cluster_2"
        assert run(["report", out]) == 0
        record = run_fit(config(output=output, model={"k": 4}, fit={"seed": 2}), Notes())
        labels = read_labels(out)
        results.append((json.dumps({**record["comparison"], "with": None}), labels.drop_attrs(deep=False)))
        assert record["names"] == ({"1": "deep convection"} if 1 in c.load_fit(out).ids else {})
        redone = run_fit(config(output={"store": out}, model={"k": 4}, fit={"seed": 3}), Notes())
        assert redone["comparison"]["churn"] == 0.0
    assert results[0][0] == results[1][0]
    assert results[0][1].identical(results[1][1])
    assert json.loads(bucket.content("out")["names.json"])["1"]["colour"] == "#123456"
