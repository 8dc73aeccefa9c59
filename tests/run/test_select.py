from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import clustering as c
from clustering.config import JobConfig, check_config
from clustering.errors import ConfigError, DataError, OutputError
from clustering.run.job import run_fit
from clustering.run.select import run_select
from tests.run.notes import Crash, Notes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows around four centers, in several chunks."""
    rng = np.random.default_rng(7)
    centers = np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 12.0], [12.0, 12.0]])
    rows = centers[rng.integers(0, 4, 1200)] + rng.standard_normal((1200, 2))
    path = tmp_path_factory.mktemp("rows") / "rows.zarr"
    xr.Dataset({"x": (("row", "feature"), rows)}).to_zarr(
        path, consolidated=False, zarr_format=3, encoding={"x": {"chunks": (200, 2)}}
    )
    return path


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of one Gaussian, which have no clusters."""
    rows = np.random.default_rng(3).standard_normal((1200, 2))
    path = tmp_path_factory.mktemp("noise") / "rows.zarr"
    xr.Dataset({"x": (("row", "feature"), rows)}).to_zarr(path, consolidated=False, zarr_format=3)
    return path


def config_for(store: Path, out: Path, **sections: Any) -> JobConfig:
    content: dict[str, Any] = {
        "source": {"store": str(store), "variables": ["x"], "sample_dims": ["row"]},
        "compute": {"block": "4KB"},
        "select": {"k": "2..6"},
        "output": {"store": str(out), "report": False},
    }
    for section, keys in sections.items():
        content[section] = {**content.get(section, {}), **keys}
    return check_config(content)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_recommended_model_is_published_like_that_of_a_fit(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    selection = run_select(config_for(store, out), Notes())
    assert selection["recommended"] == {"k": 4} == selection["published"]
    assert read(out / "selection.json")["table"] == selection["table"]
    run = read(out / "run.json")
    assert (run["k"], run["status"], run["run"]) == (4, "finished", selection["run"])
    assert run["selection"]["reason"] == selection["reason"]
    assert run["config"]["model"]["k"] == 4
    labels = xr.open_zarr(out / "labels.zarr", consolidated=False)["labels"]
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    np.testing.assert_allclose(c.load_fit(out / "model.zarr").objective, run["objective"])


def test_the_table_is_that_of_the_call_in_python(store: Path, tmp_path: Path) -> None:
    selection = run_select(config_for(store, tmp_path / "out"), Notes())
    direct = c.select_k(str(store), c.KMeans, k="2..6", variables="x", sample_dims="row", block="4KB")
    assert json.loads(json.dumps(list(direct.table))) == read(tmp_path / "out" / "selection.json")["table"]
    assert direct.reason == selection["reason"]


def test_without_a_clear_answer_no_model_is_published(noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    selection = run_select(config_for(noise, out, output={"report": True}), Notes())
    assert selection["recommended"] is None is selection["published"]
    assert "no clear answer" in selection["reason"].lower()
    assert not (out / "run.json").exists()
    assert not (out / "model.zarr").exists()
    page = (out / "selection.html").read_text()
    assert "No clear answer" in page
    assert page.count("<svg") == 1
    with pytest.raises(OutputError, match=r"holds the outcome of a sweep over k; set output\.overwrite"):
        run_select(config_for(noise, out), Notes())
    run_select(config_for(noise, out, output={"overwrite": True}), Notes())


def test_another_choice_is_published_on_request(noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    selection = run_select(config_for(noise, out, select={"publish": 3}), Notes())
    assert selection["recommended"] is None
    assert selection["published"] == {"k": 3}
    assert read(out / "run.json")["k"] == 3


@pytest.mark.parametrize("published", [{"k": 3, "covariance": "full"}, {"k": 2, "covariance": "diagonal"}], ids=str)
def test_a_choice_with_a_covariance_is_published_as_a_fit_of_it_alone(
    store: Path, tmp_path: Path, published: dict[str, Any]
) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    select = {"k": [2, 3], "covariance": ["diagonal", "full"], "criteria": ["bic"], "publish": published}
    selection = run_select(config_for(store, out, model={"kind": "gaussian_mixture"}, select=select), Notes())
    run = read(out / "run.json")
    assert selection["published"] == published
    assert (run["run"], run["k"]) == (selection["run"], published["k"])
    assert run["config"]["model"]["covariance"] == published["covariance"]
    run_fit(config_for(store, alone, model={"kind": "gaussian_mixture", **published}), Notes())
    one, other = (c.load_fit(folder / "model.zarr") for folder in (out, alone))
    np.testing.assert_array_equal(one.centers, other.centers)
    np.testing.assert_array_equal(one.covariances, other.covariances)
    labels = [xr.open_zarr(folder / "labels.zarr", consolidated=False)["labels"].values for folder in (out, alone)]
    np.testing.assert_array_equal(*labels)


@pytest.mark.parametrize(
    ("publish", "message"),
    [
        (3, r"select\.publish is 3, and several choices have that, which differ in covariance; name one, such as "
            r"\{k: 3, covariance: diagonal\}"),
        ({"k": 3, "covariance": "tied"}, r"select\.covariance does not hold covariance 'tied'"),
        ({"k": 3, "covarianc": "full"}, r"'covarianc' is nothing that varies; did you mean 'covariance'\?"),
        ({"covariance": "full"}, r"which differ in k; name one, such as \{covariance: full, k: 2\}"),
    ],
)  # fmt: skip
def test_a_request_that_names_no_choice_or_several_is_refused(
    store: Path, tmp_path: Path, publish: Any, message: str
) -> None:
    model, select = {"kind": "gaussian_mixture"}, {"k": [2, 3], "covariance": ["diagonal", "full"]}
    with pytest.raises(ConfigError, match=message):
        config_for(store, tmp_path / "out", model=model, select={**select, "publish": publish})


def test_a_sweep_killed_while_it_labels_may_go_on_with_another_choice(store: Path, tmp_path: Path) -> None:
    def killed_at_labels(name: str, work: Callable[[], Any]) -> Any:
        if name == "label":
            raise Crash
        return work()

    out, select = tmp_path / "out", {"k": [3, 4], "criteria": ["silhouette"]}
    with pytest.raises(Crash):
        run_select(config_for(store, out, select={**select, "publish": 4}), Notes(), killed_at_labels)
    assert not (out / "run.json").exists()
    notes = Notes()
    selection = run_select(config_for(store, out, select={**select, "publish": 3}), notes)
    assert any("continuing unfinished sweep" in line for line in notes.said)
    assert selection["published"] == {"k": 3} == {"k": read(out / "run.json")["k"]}
    assert read(out / "selection.json")["published"] == {"k": 3}
    with pytest.raises(OutputError, match="holds a finished run"):
        run_select(config_for(store, out, select={**select, "publish": 3}), Notes())


def test_nothing_is_published_if_nothing_shall_be(store: Path, tmp_path: Path) -> None:
    selection = run_select(config_for(store, tmp_path / "out", select={"publish": "none"}), Notes())
    assert selection["recommended"] == {"k": 4}
    assert selection["run"] is None
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_choice_to_publish_must_be_compared(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"select\.publish is 9 and select\.k does not hold it"):
        config_for(store, tmp_path / "out", select={"publish": 9})


def test_a_failed_choice_cannot_be_published(store: Path, tmp_path: Path) -> None:
    config = config_for(store, tmp_path / "out", select={"k": [3, 5000], "publish": 5000, "criteria": ["silhouette"]})
    with pytest.raises(DataError, match=r"select\.publish is 5000, and that choice has no model: k is 5000"):
        run_select(config, Notes())


@pytest.mark.parametrize("crash_after", [1, 3])
def test_a_killed_sweep_resumes_and_ends_with_the_same_bits(store: Path, tmp_path: Path, crash_after: int) -> None:
    sections: dict[str, Any] = {
        # Few sampled rows leave work for the passes.
        "fit": {"sample_rows": 40, "init": "random", "restarts": 2},
        "select": {"k": [3, 4, 9], "criteria": ["silhouette"]},
    }
    whole, killed = (config_for(store, tmp_path / name, **sections) for name in ("whole", "killed"))
    expected = run_select(whole, Notes())
    with pytest.raises(Crash):
        run_select(killed, Notes(crash_after))
    assert not (tmp_path / "killed" / "selection.json").exists()
    notes = Notes()
    resumed = run_select(killed, notes)
    assert any("continuing unfinished sweep" in line for line in notes.said)
    assert notes.iterations[0] == crash_after + 1
    assert resumed["table"] == expected["table"]


def test_choices_that_failed_before_a_kill_are_failed_after_it(store: Path, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"select": {"k": [4, 5000], "criteria": ["silhouette"]}}
    config = config_for(store, tmp_path / "out", **sections)
    with pytest.raises(Crash):
        run_select(config, Notes(1))
    resumed = run_select(config, Notes())
    assert "k is 5000" in resumed["table"][1]["failed"]


def test_a_choice_that_fails_in_a_pass_is_failed_after_a_kill_and_takes_no_other_down(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.array([[9.0, 1.0], [1.0, 9.0], [9.0, 9.0]])[rng.integers(0, 3, 3000)] + rng.uniform(0, 8, (3000, 2))
    rows[2222] = 0.0
    rows = np.column_stack([rows, np.ones(len(rows))])
    xr.Dataset({"x": (("row", "feature"), rows), "use": ("feature", [1.0, 1.0, 0.0])}).to_zarr(
        tmp_path / "rows.zarr", consolidated=False, zarr_format=3
    )
    sections: dict[str, Any] = {
        "fit": {"sample_rows": 100, "restarts": 1},
        # Without the last feature, one row is zeros, and the sample does not hold it.
        "preprocess": {"feature_weights": "use"},
        "select": {
            "k": [3],
            "divergence": ["squared_euclidean", "cosine"],
            "criteria": ["silhouette"],
            "publish": {"k": 3, "divergence": "squared_euclidean"},
        },
    }
    config = config_for(tmp_path / "rows.zarr", tmp_path / "out", **sections)
    before = Notes(1)
    with pytest.raises(Crash):
        run_select(config, before)
    selection = run_select(config, Notes())
    fine, failed = selection["table"]
    assert fine["failed"] is None
    assert failed["failed"].startswith("a row of zeros in block")
    assert selection["published"] == {"k": 3, "divergence": "squared_euclidean"}
    warned = Notes()
    run_select(config_for(tmp_path / "rows.zarr", tmp_path / "again", **sections), warned)
    assert any(line.startswith("k = 3, divergence = cosine fails: a row of zeros") for line in warned.said)


def test_a_sweep_does_not_replace_a_finished_run(store: Path, tmp_path: Path) -> None:
    run_select(config_for(store, tmp_path / "out"), Notes())
    before = read(tmp_path / "out" / "run.json")
    with pytest.raises(OutputError, match=r"set output\.overwrite to true"):
        run_select(config_for(store, tmp_path / "out"), Notes())
    assert read(tmp_path / "out" / "run.json") == before


def test_the_report_of_a_published_model_shows_the_choice(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    selection = run_select(config_for(store, out, output={"report": True}), Notes())
    page = (out / "report.html").read_text()
    assert "Why k is 4" in page
    assert "Choice of k" in page
    assert selection["reason"].split(":")[0] in (out / "selection.html").read_text()


def test_start_from_the_current_model_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fit\.init is 'model', which has one number of clusters"):
        run_select(config_for(store, tmp_path / "out", fit={"init": "model"}), Notes())
