"""`inspect` and a fit report the rows that a valid range leaves out; `source.valid_range` can switch that off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

from clustering.config import check_config
from clustering.run.inspect import inspect_job
from clustering.run.job import run_fit, run_predict
from clustering_flows.cli import run
from tests.run.notes import Notes

SAID = "valid_max of variable 't' leaves out 32 of 40 rows (32 values, above 200 as stored)"


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    group = zarr.create_group(tmp_path / "s.zarr")
    values = np.where(np.arange(40) % 5, 300, 10 + np.arange(40)).astype("i2")
    about = {"scale_factor": 0.1, "valid_max": 20.0, "valid_min": "none"}
    group.create_array("t", data=values, chunks=(40,), attributes=about, dimension_names=("cell",))
    source = {"store": str(tmp_path / "s.zarr"), "variables": ["t"], "feature_dims": []}
    output = {"store": str(tmp_path / "out"), "report": False}
    return {"source": source, "model": {"k": 2}, "output": output}


def test_inspect_reports_what_a_fit_warns_of(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    advice = inspect_job(check_config(content))["advice"]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    assert run(["fit", str(tmp_path / "job.yaml"), "--no-prefect"]) == 0
    printed, record = capsys.readouterr().err, json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["n_rows"], record["n_masked"]) == (8, 32)
    passed_over = "valid_min of variable 't' is 'none', no number, and is ignored"
    for said in (SAID, passed_over):
        assert said in printed
        assert any(advised.startswith(said) for advised in advice)
        assert [warning for warning in record["warnings"] if warning.startswith(said)] != []


def test_a_key_passes_valid_ranges_over(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    assert run(["fit", str(tmp_path / "job.yaml"), "--no-prefect", "--set", "source.valid_range=ignore"]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["n_rows"] == 40
    assert record["config"]["source"]["valid_range"] == "ignore"
    assert not [warning for warning in record["warnings"] if "valid_" in warning]


def test_every_later_night_reports_what_leaves_rows_out(content: dict[str, Any]) -> None:
    config = check_config({**content, "fit": {"init": "model"}})
    records = [run_fit(config, Notes()) for _ in range(2)]
    assert "followed" not in records[0]
    assert records[1]["followed"]["unchanged"] == 1
    predicted = {**content, "output": {**content["output"], "store": f"{content['output']['store']}-too"}}
    records.append(run_predict(content["output"]["store"], check_config(predicted), Notes()))
    for record in records:
        assert sum(warning.startswith(SAID) for warning in record["warnings"]) == 1


def test_the_key_counts_in_the_identity_of_a_run_only_where_it_is_used(content: dict[str, Any]) -> None:
    usual = check_config(content).result_keys
    assert "valid_range" not in usual["source"]
    content["source"]["valid_range"] = "ignore"
    assert check_config(content).result_keys["source"]["valid_range"] == "ignore"


@pytest.mark.parametrize("value", ["none", None, ["cf"]], ids=str)
def test_another_value_is_refused(
    content: dict[str, Any], value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content["source"]["valid_range"] = value
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    assert run(["fit", str(tmp_path / "job.yaml"), "--no-prefect"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("clustering: source.valid_range is ")
    assert error.endswith("allowed: cf, ignore\n")


def test_nan_of_nodata_goes_with_whole_numbers(content: dict[str, Any]) -> None:
    content["source"] |= {"nodata": float("nan"), "valid_range": "ignore"}
    assert inspect_job(check_config(content))["forecast"]["masked_share"] == 0.0
