"""How many columns or centers meet at once depends on the processor, and no bit does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUMS = """
import hashlib, sys
import numpy as np
from clustering.models import lanes
lanes.MANY_REGISTERS = sys.argv[1] == "many"
from clustering.data.rows import in_memory_rows
from clustering.models.course import Course, split_rows
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.mixture import GaussianMixture
from clustering.models.mixture_params import MixtureParams
rng = np.random.default_rng(0)
rows = in_memory_rows(rng.standard_normal((777, 21)))
centers, half = rng.standard_normal((13, 21)), rng.standard_normal((13, 21, 21))
full = half @ half.transpose(0, 2, 1) + np.eye(21)
digest = hashlib.sha256()
for kind, covariances in (("full", full), ("tied", full[0])):
    params = MixtureParams(np.zeros(21), centers, np.full(13, 1 / 13), covariances, np.ones(21), kind)
    sums = GaussianMixture(13, kind).statistics(params, rows)
    for total in sums.sums.values():
        digest.update(total.tobytes())
passes = tuple(KMeans(13).for_pass(KMeansParams(np.zeros(21), (1 - 0.02 * i) * centers)) for i in range(3))
split, near = split_rows(Course(passes, np.full((3, 13), 0.05)), rows)
assert 0 < near.sum() < len(near)
digest.update(near.tobytes() + split.steady.first.tobytes())
labels = KMeans(13).assign(KMeansParams(np.zeros(21), centers), rows).labels
print(digest.hexdigest(), hashlib.sha256(labels.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_bits_do_not_depend_on_the_number_of_registers(tmp_path: Path) -> None:
    def digests(registers: str) -> str:
        # Kernels of the two kinds share a name, so each has a cache of its own.
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / registers)}
        command = [sys.executable, "-c", SUMS, registers]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    assert digests("many") == digests("few")
