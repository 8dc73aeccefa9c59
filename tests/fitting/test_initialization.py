from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import clustering as c
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner
from clustering.fitting.options import Options, options_for
from clustering.fitting.survey_pass import run_survey
from clustering.models.survey import Survey
from clustering.options import FitOptions, PreprocessOptions


def surveyed(values: np.ndarray, k: int = 2, sample_rows: int = 100) -> tuple[Survey, int]:
    source = c.open_source(values)
    plan = source.plan(block_bytes=8000)
    with connect("threads") as engine, pass_runner(source, plan, engine, memory=2**26) as inside:
        survey, passed = run_survey(inside, c.KMeans(k), Options(FitOptions(sample_rows=sample_rows)), 2**26)
    return survey, passed.read_stats.blocks // len(plan)


@pytest.mark.parametrize("rows", [5, 80, 3000], ids="{} rows with numbers".format)
def test_the_sample_is_full_however_many_cells_are_missing(rows: int, rng: np.random.Generator) -> None:
    values = np.full((20_000, 2), np.nan)
    values[rng.choice(len(values), rows, replace=False)] = rng.standard_normal((rows, 2))
    survey, _ = surveyed(values)
    assert survey.count == rows
    assert len(survey.sample.weights) == min(rows, 100)
    assert survey.sample.complete == (rows <= 100)


@pytest.mark.parametrize(
    ("every", "least", "most"),
    [(5, 1000, 1000), (2, 650, 850), (1.25, 1000, 1000)],
    ids=["fifth", "half", "four-fifths"],
)
def test_a_second_pass_fills_the_sample_where_it_is_less_than_half_full(
    every: float, least: int, most: int, rng: np.random.Generator
) -> None:
    values = rng.standard_normal((20_000, 2))
    values[np.arange(0, 20_000, every).astype(int)] = np.nan
    survey, reads = surveyed(values, sample_rows=1000)
    assert least <= len(survey.sample.weights) <= most
    assert survey.sample.represented.sum() == pytest.approx(survey.count, rel=0.1)
    # The second pass goes over rows in memory.
    assert reads == 1


def test_a_few_rows_among_many_missing_cells_are_clustered(rng: np.random.Generator) -> None:
    values = np.full((300_000, 1), np.nan)
    values[[7, 1000, 250_000, 299_999], 0] = [1.0, 1.5, 9.0, 9.5]
    fit = c.fit(values, c.KMeans(2), sample_rows=1000)
    np.testing.assert_allclose(np.sort(fit.centers[:, 0]), [1.25, 9.25])


FIT = """
import hashlib, numpy as np, clustering as c
rng = np.random.default_rng(3)
rows, weights = rng.standard_normal((5000, 40)) + 1e4, rng.random(5000)
fit = c.fit(rows, c.KMeans(20), weights=weights, sample_rows=500, block_bytes=200_000)
parts = (fit.centers, fit.history, fit.predict(rows), fit.weights, np.array(fit.objective))
print(hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest())
"""


@pytest.mark.slow
def test_the_bits_do_not_depend_on_the_blas_kernels() -> None:
    # OpenBLAS takes another path for each kind of processor, and adds up in another order.
    kinds = ("Haswell", "Sandybridge", "Nehalem")
    digests = {
        subprocess.run(
            [sys.executable, "-c", FIT],
            env={**os.environ, "OPENBLAS_CORETYPE": kind},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for kind in kinds
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("model", "restarts", "finalists"),
    [(c.KMeans(2), 10, 1), (c.SoftKMeans(2), 10, 1), (c.GaussianMixture(2), 10, 3), (c.VonMisesFisher(2), 2, 2)],
    ids=["kmeans", "soft", "mixture", "few-restarts"],
)
def test_finalists_are_as_many_as_the_model_says_unless_given(model: Any, restarts: int, finalists: int) -> None:
    assert options_for(model, FitOptions(restarts=restarts), PreprocessOptions()).finalists == finalists
    assert options_for(model, FitOptions(restarts=restarts, finalists=1), PreprocessOptions()).finalists == 1
