from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from clustering_flows.cli import run


@dataclass(frozen=True)
class Place:
    """A folder with a source, a finished run and a config to spoil."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def config(self) -> Path:
        return self.folder / "job.yaml"

    @property
    def content(self) -> dict[str, Any]:
        return {
            "source": {
                "store": str(self.folder / "field.zarr"),
                "variables": ["t", "q"],
                "sample_dims": ["time", "lat", "lon"],
            },
            "model": {"k": 3},
            "compute": {"block": "8KB"},
            "output": {"store": str(self.out), "report": False},
        }


def listing(folder: Path) -> dict[str, tuple[int, int] | None]:
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) if p.is_file() else None
        for p in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    rng = np.random.default_rng(4)
    folder = tmp_path_factory.mktemp("bad")
    dims, values = ("time", "lat", "lon"), rng.standard_normal((12, 9, 10))
    holed, infinite = values.copy(), values.copy()
    holed[7, 4, 2], infinite[7, 4, 2] = np.nan, np.inf
    time = np.arange("2001-01-01", "2001-01-13", dtype="datetime64[D]").astype("datetime64[ns]")
    data = xr.Dataset(
        {
            "t": (dims, values),
            "q": (dims, -values),
            "holed": (dims, holed),
            "infinite": (dims, infinite),
            "gone": (dims, np.full(values.shape, np.nan)),
            "constant": (dims, np.ones(values.shape)),
            "positive": (dims, np.abs(values) + 0.1),
            "zeroed": (dims, np.where(np.arange(10) == 3, 0.0, np.abs(values) + 0.1)),
            "known": (dims, (np.abs(values) * 2).astype(int)),
            "unknown": (dims, np.full(values.shape, -1)),
            "vast": (dims, values * 1e200),
            "sea": (("lat", "lon"), np.ones((9, 10), bool)),
            "land": (("lat", "lon"), np.zeros((9, 10), bool)),
            "weightless": (("lat", "lon"), np.zeros((9, 10))),
            "negative": (("lat", "lon"), np.full((9, 10), -1.0)),
            "complex": (dims, values * 1j),
        },
        coords={"time": time, "lat": np.linspace(80, -80, 9), "lon": np.arange(0.0, 360.0, 36.0)},
    )
    chunks = {name: {"chunks": (5, 9, 10)} for name in ("t", "q", "holed", "infinite")}
    data.to_zarr(folder / "field.zarr", consolidated=False, zarr_format=3, encoding=chunks)
    (folder / "not-zarr").mkdir()
    (folder / "file").write_text("precious")
    (folder / "theirs").mkdir()
    (folder / "theirs" / "thesis.txt").write_text("precious")
    place = Place(folder)
    finished = place.content
    finished["output"]["store"] = str(folder / "finished")
    place.config.write_text(yaml.safe_dump(finished))
    assert run(["fit", str(place.config), "--no-prefect"]) == 0
    return place


@pytest.fixture
def place(prepared: Place) -> Iterator[Place]:
    """The prepared folder, cleaned of what a mistake should not have left."""
    yield prepared
    shutil.rmtree(prepared.out, ignore_errors=True)


@dataclass(frozen=True)
class Case:
    """What a user gets wrong, and what must be named."""

    named: list[str]
    code: int = 2
    change: dict[str, Any] = field(default_factory=dict)
    """``section/key`` to value; formats ``{folder}``."""
    tokens: Callable[[Place], list[str]] = lambda p: ["fit", str(p.config)]
    text: str | None = None
    """The whole config file, where that is what is wrong."""


def fit(*more: str) -> Callable[[Place], list[str]]:
    return lambda p: ["fit", str(p.config), *more]


def predict(model: str, *more: str) -> Callable[[Place], list[str]]:
    return lambda p: ["predict", str(p.folder / model), str(p.config), *more]


CASES = {
    # The source.
    "missing store": Case(["{folder}/nowhere.zarr", "source.store"], change={"source/store": "{folder}/nowhere.zarr"}),
    "store that is no Zarr": Case(["{folder}/not-zarr", "ingest"], change={"source/store": "{folder}/not-zarr"}),
    "store that is a file": Case(["{folder}/file"], change={"source/store": "{folder}/file"}),
    "unknown protocol": Case(["nowhere://x"], change={"source/store": "nowhere://x"}),
    "wrong group": Case(["'nope'"], change={"source/group": "nope"}),
    "storage options of a path": Case(["storage_options"], change={"source/storage_options": {"anon": True}}),
    "unknown variable": Case(["'temp'", "allowed: "], change={"source/variables": ["t", "temp"]}),
    "variable named twice": Case(["'t'"], change={"source/variables": ["t", "t"]}),
    "variable that is no number": Case(["'complex'"], change={"source/variables": ["complex"]}),
    "no variables": Case(["no variables named"], change={"source/variables": []}),
    "several variables and none named": Case(["16 variables"], change={"source/variables": None}),
    "unknown sample dimension": Case(
        ["'latt'", "did you mean 'lat'?"], change={"source/sample_dims": ["time", "latt", "lon"]}
    ),
    "dimension left over": Case(
        ["'lon'", "'t'"], change={"source/sample_dims": ["time", "lat"], "source/feature_dims": []}
    ),
    "feature dimension that is not there": Case(["'depth'", "feature_dims"], change={"source/feature_dims": ["depth"]}),
    "dimension for both": Case(["'lon'"], change={"source/feature_dims": ["lon"]}),
    "unknown mask": Case(["'see'", "did you mean 'sea'?"], change={"source/mask": "see"}),
    "unknown weights": Case(["'wait'", "weights"], change={"source/weights": "wait"}),
    "weights by an unknown coordinate": Case(["'latitude'"], change={"source/weights": "cos(latitude)"}),
    "unknown dimension to select": Case(["'depth'"], change={"source/select": {"depth": 3}}),
    "label that is not there": Case(["17", "'lat'"], change={"source/select": {"lat": 17}, "source/sample_dims": None}),
    "position that is not there": Case(["99", "'time'"], change={"source/isel": {"time": [99]}}),
    "selection by label that holds nothing": Case(
        ["'lat'", "holds nothing"], change={"source/select": {"lat": {"start": 85, "stop": 89}}}
    ),
    "selection by position that holds nothing": Case(
        ["'time'", "holds nothing"], change={"source/isel": {"time": {"start": 4, "stop": 4}}}
    ),
    "dimension selected twice": Case(["'time'"], change={"source/isel": {"time": 1}, "source/select": {"time": 1}}),
    # The model.
    "unknown kind": Case(["model.kind", "'em'", "gaussian_mixture"], change={"model/kind": "em"}),
    "unknown covariance": Case(
        ["model.covariance", "'diag'", "diagonal"],
        change={"model/kind": "gaussian_mixture", "model/covariance": "diag"},
    ),
    "unknown divergence": Case(["model.divergence", "'l1'", "cosine"], change={"model/divergence": "l1"}),
    "key of another kind": Case(
        ["model.beta is no key of kmeans", "soft_kmeans"], change={"model/kind": "kmeans", "model/beta": 2.0}
    ),
    "beta of 0": Case(["model.beta", "0", "above 0"], change={"model/kind": "soft_kmeans", "model/beta": 0}),
    "beta below 0": Case(["model.beta", "-1", "above 0"], change={"model/kind": "soft_kmeans", "model/beta": -1.5}),
    "infinite beta": Case(["model.beta", "inf"], change={"model/kind": "soft_kmeans", "model/beta": float("inf")}),
    "word for beta": Case(["model.beta", "'high'", "auto"], change={"model/kind": "soft_kmeans", "model/beta": "high"}),
    "regularization below 0": Case(
        ["model.regularization", "-1"], change={"model/kind": "gaussian_mixture", "model/regularization": -1}
    ),
    "negative value under Kullback-Leibler": Case(
        ["kullback_leibler", "zero or more", "in variable", "block ", "source.mask"],
        1,
        change={"model/divergence": "kullback_leibler"},
    ),
    "zero under Itakura-Saito": Case(
        ["itakura_saito", "above zero", "variable 'zeroed'", "block 0 ["],
        1,
        change={"model/divergence": "itakura_saito", "source/variables": ["positive", "zeroed"]},
    ),
    "row of zeros under cosine": Case(
        ["row of zeros", "cosine", "block 0 ["],
        1,
        change={"model/divergence": "cosine", "source/variables": ["zeroed"]},
    ),
    "singular covariance": Case(
        ["singular", "constant", "model.regularization", "0"],
        1,
        change={
            "model/kind": "gaussian_mixture",
            "model/regularization": 0,
            "source/variables": ["t", "constant"],
        },
    ),
    "constant feature under mahalanobis": Case(
        ["singular", "mahalanobis", "constant"],
        1,
        change={"model/divergence": "mahalanobis", "source/variables": ["t", "constant"]},
    ),
    "equal rows and beta auto": Case(
        ["k is 3", "1 distinct row"],
        1,
        change={"model/kind": "soft_kmeans", "model/beta": "auto", "source/variables": ["constant"]},
    ),
    "gaps under another divergence": Case(
        ["marginalize", "cosine", "squared_euclidean"],
        change={"model/divergence": "cosine", "source/missing": "marginalize"},
    ),
    "feature that nobody observed": Case(
        ["'gone'", "missing in every row"],
        1,
        change={"source/variables": ["t", "gone"], "source/missing": "marginalize"},
    ),
    "start from labels that are not named": Case(["'labels'", "source.labels"], change={"fit/init": "labels"}),
    "labels that are not there": Case(["'knwon'", "did you mean 'known'?"], change={"source/labels": "knwon"}),
    "label beyond k": Case(["label", "k is 3", "0 … 2"], 1, change={"source/labels": "known", "fit/init": "labels"}),
    "labels of nobody": Case(
        ["no row", "label 0", "0 … 2"], 1, change={"source/labels": "unknown", "fit/init": "labels"}
    ),
    "responsibilities of hard clusters": Case(
        ["output.responsibilities", "kmeans", "soft_kmeans"], change={"output/responsibilities": "all"}
    ),
    "density of hard clusters": Case(["log_density", "gaussian_mixture"], change={"output/log_density": True}),
    "unknown degree": Case(["output.responsibilities", "'some'", "top"], change={"output/responsibilities": "some"}),
    "no largest": Case(["output.top", "0"], change={"output/top": 0}),
    # The preprocessing.
    "unknown standard": Case(
        ["preprocess.standardize is 'per_row'", "false, per_feature, per_variable"],
        change={"preprocess/standardize": "per_row"},
    ),
    "no components": Case(["preprocess.pca is 0", "1 or more"], change={"preprocess/pca": 0}),
    "all of the variance": Case(["preprocess.pca is 1.0", "between 0 and 1"], change={"preprocess/pca": 1.0}),
    "word for components": Case(["preprocess.pca is 'many'", "null"], change={"preprocess/pca": "many"}),
    "components of each variable and none wanted": Case(
        ["preprocess.pca_per_variable", "set pca"], change={"preprocess/pca_per_variable": True}
    ),
    "more components than features": Case(["pca is 9", "2 features", "2 or fewer"], 1, {"preprocess/pca": 9}),
    "constant feature to standardize": Case(
        ["'constant'", "is constant", "preprocess.standardize"],
        1,
        {"preprocess/standardize": "per_feature", "source/variables": ["t", "constant"]},
    ),
    "unknown feature weights": Case(
        ["'latt'", "did you mean 'lat'?"], change={"preprocess/feature_weights": "cos(latt)"}
    ),
    "feature weights along samples": Case(
        ["'cos(lat)'", "lie along lat", "source.weights"], change={"preprocess/feature_weights": "cos(lat)"}
    ),
    "components of rows with gaps": Case(
        ["marginalize", "pca is 1", "source.missing"],
        change={"preprocess/pca": 1, "source/missing": "marginalize"},
    ),
    "row of zeros to bring to length 1": Case(
        ["row of zeros", "block 0 [", "unit_norm", "source.missing"],
        1,
        {"preprocess/unit_norm": True, "source/variables": ["zeroed"], "source/missing": "error"},
    ),
    "fraction of nothing": Case(["fit.fraction is 0", "more than 0"], change={"fit/fraction": 0}),
    "fraction that draws no row": Case(["fraction is 1e-09", "none of the rows"], 1, {"fit/fraction": 1e-9}),
    "prediction with another preprocessing": Case(
        ["preprocess.standardize is 'per_feature'", "fitted with None", "fit a new model"],
        2,
        {"preprocess/standardize": "per_feature"},
        predict("finished"),
    ),
    # The values.
    "k above the distinct rows": Case(
        ["k is 9", "1 distinct row"], 1, {"source/variables": ["constant"], "model/k": 9}
    ),
    "all missing": Case(["no row takes part"], 1, {"source/variables": ["gone"]}),
    "all masked": Case(["no row takes part", "source.mask"], 1, {"source/mask": "land"}),
    "zero weights": Case(["weights", "are zero"], 1, {"source/weights": "weightless"}),
    "negative weights": Case(["'negative'", "block"], 1, {"source/weights": "negative"}),
    "missing value": Case(
        ["'holed'", "block 1 [5:10", "source.missing"],
        1,
        {"source/variables": ["t", "holed"], "source/missing": "error"},
    ),
    "infinity": Case(["'infinite'", "block 1 [5:10"], 1, {"source/variables": ["t", "infinite"]}),
    "values whose squares overflow": Case(["squares overflow", "rescale"], 1, {"source/variables": ["vast"]}),
    "block above the memory": Case(["compute.memory"], 1, {"compute/memory": "1KiB"}),
    # The output.
    "output at a file": Case(["{folder}/file"], 1, {"output/store": "{folder}/file"}),
    "output below a file": Case(["{folder}/file/out"], 1, {"output/store": "{folder}/file/out"}),
    "output with other things": Case(["'thesis.txt'", "{folder}/theirs"], 2, {"output/store": "{folder}/theirs"}),
    "finished output": Case(["{folder}/finished", "output.overwrite"], 2, {"output/store": "{folder}/finished"}),
    "output on the web": Case(["https://host/out", "a folder"], 2, {"output/store": "https://host/out"}),
    "output in a bucket of nobody": Case(["s3://bucket/out", "credentials"], 2, {"output/store": "s3://bucket/out"}),
    "scratch below a file": Case(["scratch", "{folder}/file"], change={"compute/scratch": "{folder}/file/x"}, code=1),
    # The config.
    "k below one": Case(["model.k is 0"], change={"model/k": 0}),
    "seed too large": Case(["seed"], change={"fit/seed": 2**64}),
    "more finalists than restarts": Case(["finalists is 20"], change={"fit/finalists": 20}),
    "typo in a key": Case(["'source.variabels'", "did you mean 'variables'?"], change={"source/variabels": []}),
    "typo in a section": Case(["'modle'", "did you mean 'model'?"], change={"modle/k": 3}),
    "hyphen in a key": Case(["'source.sample-dims'", "'sample_dims'"], change={"source/sample-dims": []}),
    "hyphen in a section": Case(["'out-put'"], change={"out-put/store": "x"}),
    "unknown cluster": Case(["compute.cluster is 'thread'"], change={"compute/cluster": "thread"}),
    "size that is none": Case(["compute.memory is 'lots'"], change={"compute/memory": "lots"}),
    "config that is not YAML": Case(["{folder}/job.yaml", "line 2"], text="source: {store: a}\nmodel: ["),
    "config without keys": Case(["{folder}/job.yaml"], text=""),
    "missing config": Case(["{folder}/none.yaml"], tokens=lambda p: ["fit", str(p.folder / "none.yaml")]),
    "config that is a folder": Case(["{folder}/theirs"], tokens=lambda p: ["fit", str(p.folder / "theirs")]),
    "missing config to inspect": Case(
        ["{folder}/none.yaml"], tokens=lambda p: ["inspect", str(p.folder / "none.yaml")]
    ),
    # The arguments.
    "unknown command": Case(["fti"], tokens=lambda p: ["fti", str(p.config)]),
    "unknown option": Case(["--sett"], tokens=fit("--sett", "model.k=3")),
    "argument too many": Case(["more"], tokens=fit("more")),
    "no config": Case(["config"], tokens=lambda _: ["fit"]),
    "override without a value": Case(["'model.k'", "--set"], tokens=fit("--set", "model.k")),
    "override of nothing": Case(["--set"], tokens=fit("--set")),
    "override of an unknown key": Case(["'model.kk'"], tokens=fit("--set", "model.kk=3")),
    "override of a value with a wrong one": Case(["model.k is 'x'"], tokens=fit("--set", "model.k=x")),
    # Other commands.
    "missing model": Case(["{folder}/none"], tokens=predict("none")),
    "model that is a source": Case(["{folder}/field.zarr"], tokens=predict("field.zarr")),
    "fewer features than the model's": Case(["1 features", "2"], 1, {"source/variables": ["t"]}, predict("finished")),
    "features in another order": Case(["q, t", "order"], 1, {"source/variables": ["q", "t"]}, predict("finished")),
    "prediction without rows": Case(["no row takes part"], 1, {"source/mask": "land"}, predict("finished")),
    "prediction over a finished output": Case(
        ["{folder}/finished"], 2, {"output/store": "{folder}/finished"}, predict("finished")
    ),
    "report of a missing run": Case(["{folder}/none"], 1, tokens=lambda p: ["report", str(p.folder / "none")]),
    "report of something else": Case(["{folder}/theirs"], 1, tokens=lambda p: ["report", str(p.folder / "theirs")]),
    "missing file to ingest": Case(
        ["{folder}/none.jpg"], tokens=lambda p: ["ingest", str(p.folder / "none.jpg"), str(p.out)]
    ),
    "inspection of a missing store": Case(
        ["{folder}/nowhere.zarr"], 2, {"source/store": "{folder}/nowhere.zarr"}, lambda p: ["inspect", str(p.config)]
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_mistake_is_reported_in_one_line_and_leaves_nothing_behind(
    case: Case, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(place.folder)
    content = deepcopy(place.content)
    for key, value in case.change.items():
        section, name = key.split("/")
        filled = value.replace("{folder}", folder) if isinstance(value, str) else value
        content.setdefault(section, {})[name] = filled
    place.config.write_text(yaml.safe_dump(content) if case.text is None else case.text)
    before = listing(place.folder)

    code = run(case.tokens(place))

    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if line.startswith("clustering: ")] == err.splitlines()[-1:]
    message = err.splitlines()[-1]
    for name in case.named:
        assert name.replace("{folder}", folder) in message
    assert "Traceback" not in err
    assert "--debug shows where" not in message
    assert ".;" not in message
    assert code == case.code
    assert out == ""
    assert listing(place.folder) == before


def test_a_mistake_in_the_config_is_all_that_is_said(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.config.write_text(yaml.safe_dump({**place.content, "model": {"k": 0}}))
    assert run(["fit", str(place.config)]) == 2
    assert capsys.readouterr().err == "clustering: model.k is 0; 1 or more is needed\n"


def test_debug_shows_where(place: Place) -> None:
    place.config.write_text(yaml.safe_dump({**place.content, "model": {"k": 0}}))
    with pytest.raises(ValueError, match=r"model\.k is 0"):
        run(["fit", str(place.config), "--debug"])
