from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dask.local
import distributed
import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.access import open_source
from clustering.data.source import Source
from clustering.execution.engine import Engine, connect
from clustering.execution.passes import pass_runner
from clustering.fitting.cluster_names import default_names
from clustering.fitting.initialization import initialize
from clustering.fitting.labelling import label_blocks
from clustering.fitting.loop import StoppingRule, iterate
from clustering.fitting.options import FitOptions, Options
from clustering.models.kmeans import KMeans
from clustering.storage.labels import create_labels

MEMORY = 64 * 2**20
MODEL = KMeans(5)
OPTIONS = Options(
    FitOptions(seed=3, restarts=3, finalists=2, sample_rows=150, init="random"), rule=StoppingRule(max_iterations=6)
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A field of several chunks with weights, a mask and missing values."""
    rng = np.random.default_rng(11)
    values = rng.standard_normal((20, 12, 15, 40)).astype(np.float32) + 1e4
    values[3, 2:4, 5, 7] = np.nan
    dataset = xr.Dataset(
        {
            "profile": (("time", "lat", "lon", "depth"), values),
            "surface": (("time", "lat", "lon"), rng.standard_normal((20, 12, 15)) * 3),
            "sea": (("lat", "lon"), rng.random((12, 15)) > 0.2),
        },
        coords={"lat": np.linspace(-88, 88, 12), "depth": np.arange(40.0)},
    )
    path = tmp_path_factory.mktemp("bits") / "field.zarr"
    encoding = {"profile": {"chunks": (3, 5, 15, 40)}, "surface": {"chunks": (3, 5, 15)}}
    dataset.to_zarr(path, consolidated=False, zarr_format=3, encoding=encoding)
    return open_source(
        path,
        variables=["profile", "surface"],
        sample_dims=["time", "lat", "lon"],
        feature_dims=["depth"],
        mask="sea",
        weights="cos(lat)",
    )


def outcome(source: Source, engine: Engine, folder: Path, *, memory: int = MEMORY, scratch: Path | None = None) -> Any:
    """Everything that a fit gives, as bytes."""
    plan = source.plan(block_bytes=80_000, memory=MEMORY)
    assert len(plan) > 16
    with pass_runner(source, plan, engine, memory=memory, scratch=None if scratch is None else str(scratch)) as inside:
        initialization = initialize(inside, MODEL, OPTIONS, MEMORY)
        survey, state = initialization.survey, initialization.state
        for after, _ in iterate(state, inside.run, OPTIONS.rule):
            state = after
        write = create_labels(folder / "labels.zarr", source, plan, default_names(MODEL.k), {})
        sums = label_blocks(inside, MODEL, state.best.params, write).statistics[0]
    assert len(state.best.history) > 4
    return {
        "centers": [(c.params.origin + c.params.centers).tobytes() for c in state.candidates],
        "history": [np.array(c.history).tobytes() for c in state.candidates],
        "objective": np.float64(sums.objective).tobytes(),
        "weight": sums.weight.tobytes(),
        "moments": (survey.mean.tobytes(), survey.scatter.tobytes(), survey.weight),
        "labels": np.asarray(zarr.open_array(folder / "labels.zarr" / "labels", mode="r")[...]).tobytes(),
    }


@pytest.fixture(scope="module")
def reference(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with connect("synchronous") as engine:
        return outcome(source, engine, tmp_path_factory.mktemp("synchronous"))


@contextmanager
def address() -> Iterator[Engine]:
    """An engine at the address of a running scheduler, with workers of several threads."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        connect({"address": cluster.scheduler_address}, 2) as engine,
    ):
        assert engine.threads == 4
        yield engine


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(lambda: connect("threads", 1), id="1 thread"),
        pytest.param(lambda: connect("threads", 2), id="2 threads"),
        pytest.param(lambda: connect("threads", 4), id="4 threads"),
        pytest.param(lambda: connect("local", 1), id="1 local worker", marks=pytest.mark.slow),
        pytest.param(lambda: connect("local", 2), id="2 local workers"),
        pytest.param(lambda: connect("local", 4), id="4 local workers", marks=pytest.mark.slow),
        pytest.param(address, id="scheduler at an address", marks=pytest.mark.slow),
    ],
)
def test_every_engine_gives_the_same_bits(
    engine: Callable[[], AbstractContextManager[Engine]], source: Source, reference: Any, tmp_path: Path
) -> None:
    with engine() as connected:
        assert outcome(source, connected, tmp_path) == reference


@pytest.mark.parametrize("seed", [0, 1, 2], ids="order {}".format)
def test_the_order_in_which_tasks_finish_leaves_the_bits_alone(
    seed: int, source: Source, reference: Any, tmp_path: Path
) -> None:
    order = random.Random(seed)

    def get(graph: Mapping[Any, Any], key: Any) -> Any:
        # The synchronous scheduler orders tasks by key, so every ready task is computed alone first, in random order.
        ready = [k for k, task in graph.items() if isinstance(k, tuple) and k[1:2] == (0,)]
        done: dict[Any, Any] = {}
        for one in order.sample(ready, len(ready)):
            done[one] = dask.local.get_sync(graph, one)
        return dask.local.get_sync({**graph, **{k: (Held(v),) for k, v in done.items()}}, key)

    assert outcome(source, Engine("shuffled", get, 3), tmp_path) == reference


class Held:
    """A task that returns a value computed before."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


@pytest.mark.parametrize("in_files", [False, True], ids=["read again", "kept in files"])
def test_where_rows_are_kept_leaves_the_bits_alone(
    in_files: bool, source: Source, reference: Any, tmp_path: Path
) -> None:
    memory = 2 * source.plan(block_bytes=80_000, memory=MEMORY).block_bytes
    with connect("threads", 2) as engine:
        scratch = tmp_path / "scratch" if in_files else None
        assert outcome(source, engine, tmp_path, memory=memory, scratch=scratch) == reference


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a scheduler with worker processes, which take longer to start than a fit takes."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:beta is:clustering.ClusteringWarning")
@pytest.mark.parametrize(
    "model",
    [
        c.GaussianMixture(4, "full"), c.GaussianMixture(4, "tied"), c.GaussianMixture(9, "diagonal"),
        c.SoftKMeans(9, beta=0.05), c.KMeans(4, "cosine"), c.VonMisesFisher(4),
    ],
    ids=str,
)  # fmt: skip
def test_every_model_has_the_same_bits_on_threads_and_in_worker_processes(
    model: Any, source: Source, scheduler: str
) -> None:
    def parts(**options: Any) -> list[bytes]:
        fit = c.fit(source, model, block_bytes=80_000, sample_rows=500, max_iterations=4, restarts=2, **options)
        arrays = [fit.params.centers, fit.history, fit.fitted.weights, fit.fitted.covariances]
        return [np.asarray(array).tobytes() for array in arrays if array is not None]

    expected = parts(cluster="synchronous")
    assert parts(cluster="threads", workers=3) == expected
    assert parts(cluster={"address": scheduler}, workers=2) == expected
