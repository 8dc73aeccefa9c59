"""What `clustering inspect` prints, including the errors of a job that would fail."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from outlook import short_probes  # noqa: F401

from clustering.data import codecs
from clustering.report.inspection import inspection_lines
from clustering.report.units import size
from clustering_flows.cli import run

Job = tuple[Path, dict[str, Any]]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Packed profiles (time 8, depth 3, x 20). Each chunk holds all depths, and 2 chunks were never written."""
    group = zarr.create_group(tmp_path / "s")
    array = group.create_array(
        "t", shape=(8, 3, 20), chunks=(2, 3, 10), dtype="i2", fill_value=-9, dimension_names=("time", "depth", "x")
    )
    array.attrs.update({"scale_factor": 0.5, "_FillValue": -9})
    array[2:] = np.random.default_rng(0).integers(0, 1000, (6, 3, 20))
    array[2, 0, :5] = -9
    content: dict[str, Any] = {
        "source": {"store": str(tmp_path / "s"), "variables": ["t"], "feature_dims": ["depth"]},
        "model": {"k": 3},
        "output": {"store": str(tmp_path / "out")},
    }
    return tmp_path / "job.yaml", content


def inspected(job: Job, capsys: pytest.CaptureFixture[str], *sets: str) -> tuple[list[str], Any]:
    path, content = job
    path.write_text(json.dumps(content))
    arguments = [part for one in sets for part in ("--set", one)]
    assert run(["inspect", str(path), *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if "compiling" not in line] == []
    *lines, last = out.splitlines()
    return lines, json.loads(last)


def test_everything_is_laid_out_in_lines(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    lines, inspection = inspected(job, capsys)
    who = "in Rust by zarrs" if codecs.rust() else "by zarr"
    assert lines[:2] == [
        "variable   t (time 8, depth 3, x 20) int16 decoded to float64, chunks 2 × 3 × 10",
        f"           codecs zstd, no checksums; decoded {who}",
    ]
    assert (
        lines[2] == f"           8 chunks to read, 2 of them never written, {inspection['stored_bytes']:,} B in a read"
    )
    stored = sum(p.stat().st_size for p in (job[0].parent / "s" / "t" / "c").rglob("*") if p.is_file())
    assert inspection["stored_bytes"] == stored
    # 40 cells were never written, 5 lack a level; all blocks are probed.
    assert inspection["forecast"]["masked_share"] == pytest.approx(45 / 160)
    assert [re.split(r"about|: ", line)[0].strip() for line in lines[3:]][:6] == [
        "samples    time 8, x 20",
        "masked",
        "features   3 (depth 3), 24 B a row",
        f"blocks     {inspection['n_blocks']} of {' × '.join(map(str, inspection['block_shape']))}, "
        f"{inspection['block_bytes']:,} B decoded".replace("3,840 B", "3.8 KiB"),
        f"one read   3.8 KiB decoded, {stored:,} B as stored,",
        "kept       1.6 KiB of rows; 100 % stay in memory",
    ]
    assert [line.split()[0] for line in lines[9:]] == ["memory", "pass", "passes", "labels", "reads", "note", "advice"]
    assert "reads      1 for pass 0, 0 for each pass, 0 for the labels" in lines[13]
    assert "2 of 8 chunks of variable 't' were never written" in lines[-1]
    assert list(inspection_lines(inspection)) == lines


def test_json_has_every_part(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    _, inspection = inspected(job, capsys)
    (variable,) = inspection["variables"]
    assert variable["codecs"] == ["zstd"]
    assert (variable["read_chunks"], variable["absent_chunks"]) == (8, 2)
    assert (variable["reads"], variable["label_reads"], variable["surplus"]["depth"]) == (1.0, 1.0, 1.0)
    assert (inspection["cells"], inspection["n_features"], inspection["row_bytes"], inspection["kept_row_bytes"]) == (
        160,
        3,
        24,
        6,
    )
    assert inspection["faults"] == []
    assert set(inspection["forecast"]["memory"]) == {"libraries", "labels", "kept", "at_work", "statistics", "sample"}
    assert inspection["forecast"]["memory_bytes"] == sum(inspection["forecast"]["memory"].values())


def test_levels_that_are_read_for_nothing_are_reported(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    lines, inspection = inspected(job, capsys, "source.isel={depth: [1]}")
    assert inspection["variables"][0]["surplus"]["depth"] == 3.0
    assert lines[2].endswith("which hold 3.00 times the selected values")
    assert any("3.0 times along depth" in line for line in lines if line.startswith("advice"))


def test_what_would_stop_the_job_at_once_is_reported(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    path, content = job
    path.write_text(json.dumps(content))
    assert run(["fit", str(path), "--no-prefect", "--set", "output.report=false"]) == 0
    capsys.readouterr()
    lines, inspection = inspected(job, capsys)
    (fault,) = (line for line in lines if line.startswith("fault"))
    assert "holds a finished run; set output.overwrite to true" in fault
    assert len(inspection["faults"]) == 1
    assert inspected(job, capsys, "output.overwrite=true")[1]["faults"] == []
    (path.parent / "other").mkdir()
    (path.parent / "other" / "thesis.tex").write_text("")
    _, inspection = inspected(job, capsys, f"output.store={path.parent / 'other'}")
    assert "holds 'thesis.tex'" in inspection["faults"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("output.responsibilities=max", "responsibilities is 'max' and the model is kmeans"),
        ("output.log_density=true", "describes no density"),
        ("fit.init=labels", "no labels are named"),
        ("source.variables=[u]", "'u'"),
    ],
)
def test_wishes_that_do_not_fit_are_refused_as_by_a_fit(
    job: Job, capsys: pytest.CaptureFixture[str], change: str, words: str
) -> None:
    path, content = job
    path.write_text(json.dumps(content))
    errors = []
    for command in (["inspect"], ["fit", "--no-prefect"]):
        assert run([*command, str(path), "--set", change]) == 2
        errors.append(capsys.readouterr().err)
    assert errors[0] == errors[1]
    assert words in errors[0]


def test_where_no_time_can_be_estimated_the_reason_is_printed(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    lines, inspection = inspected(job, capsys, "model.k=500")
    assert inspection["forecast"]["pass_seconds"] is None
    (line,) = (line for line in lines if line.startswith("time"))
    assert line.startswith("time       not known: k is 500")


@pytest.mark.parametrize(("cluster", "expected"), [("threads", (1, 3)), ("local", (3, 1)), ("synchronous", (1, 1))])
def test_workers_are_those_of_the_config(
    job: Job, capsys: pytest.CaptureFixture[str], cluster: str, expected: tuple[int, int]
) -> None:
    lines, inspection = inspected(job, capsys, f"compute.cluster={cluster}", "compute.workers=3")
    assert (inspection["workers"]["processes"], inspection["workers"]["threads"]) == expected
    assert any(("a worker" if expected[0] > 1 else "a process") in line for line in lines if line.startswith("memory"))
    homes = [line for line in lines if line.startswith("homes")]
    each = size(inspection["forecast"]["residency"]["memory"] / expected[0])
    workers = f"homes      each of {expected[0]} workers keeps {each} in memory from pass to pass"
    assert homes == ([workers] if expected[0] > 1 else [])


def test_rows_beyond_memory_are_read_again(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("compute.memory=1KB", "compute.block=100B", "fit.max_iterations=10")
    lines, inspection = inspected(job, capsys, *small, "fit.accelerate=none")
    share = inspection["forecast"]["reread_share"]
    assert 0 < share < 1
    (reads,) = (line for line in lines if line.startswith("reads"))
    assert f"1 for pass 0, {share:.2g} for each pass, {share:.2g} for the labels" in reads
    assert any("stay in memory or on scratch between passes" in line for line in lines if line.startswith("advice"))
    again = size(inspection["forecast"]["residency"]["source"])
    assert any(line.endswith(f"; {again} decoded are read again in every pass") for line in lines)
    lines, inspection = inspected(job, capsys, *small)
    forecast, stored = inspection["forecast"], inspection["stored_bytes"]
    (passes,) = (line for line in lines if line.startswith("passes"))
    assert f"each over the {100 * forecast['near_share']:.0f} % of the rows near a boundary between clusters" in passes
    (reads,) = (line for line in lines if line.startswith("reads"))
    assert "1 for pass 0, 1 to 10 for the passes, the fewer the less centers move, 1 for the labels" in reads
    assert reads.endswith(f": {size(3 * stored)} to {size(12 * stored)} from the store")
    lines, inspection = inspected(
        job, capsys, "compute.memory=1KB", "compute.block=100B", f"compute.scratch={job[0].parent}"
    )
    assert inspection["forecast"]["reread_share"] == 0
    assert any(line.startswith("kept") and "on scratch" in line for line in lines)
