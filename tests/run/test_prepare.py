from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from clustering.config import check_config
from clustering.data.plan import MIB
from clustering.run.prepare import PreparedJob, prepare_job


def prepared(tmp_path: Path, rows: int, **sections: dict[str, Any]) -> PreparedJob:
    group = zarr.open_group(tmp_path / "store.zarr", mode="w")
    group.create_array(
        "x", shape=(rows, 8), chunks=(2_000, 8), dtype="f8", fill_value=np.nan, dimension_names=["row", "feature"]
    )
    content: dict[str, Any] = {
        "source": {"store": str(tmp_path / "store.zarr"), "variables": ["x"], "sample_dims": ["row"]},
        "model": {"kind": "kmeans", "k": 2},
        "output": {"store": str(tmp_path / "out")},
    }
    return prepare_job(check_config({key: {**content.get(key, {}), **sections.get(key, {})} for key in content}))


@pytest.mark.parametrize("megabytes", [2, 5, 10, 20, 300])
def test_small_data_are_cut_into_enough_blocks_to_hold_some_out(tmp_path: Path, megabytes: int) -> None:
    job = prepared(tmp_path, megabytes * MIB // 64, output={"publish": "gate"})
    assert job.held_out is not None
    share = np.mean([job.held_out.contains(job.plan.block(i).start) for i in range(len(job.plan))])
    assert 0.05 < share < 0.2
    without = prepared(tmp_path, megabytes * MIB // 64)
    assert without.held_out is None
    # Large data have the same blocks in both cases.
    assert (len(without.plan) < len(job.plan)) == (megabytes < 100)
