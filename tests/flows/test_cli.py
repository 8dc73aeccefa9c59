from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from sklearn.metrics import adjusted_rand_score

import clustering
from clustering.execution.engine import connect
from clustering.execution.passes import ReadStats
from clustering.fitting.loop import PassRecord, StoppingRule
from clustering.report.units import duration, size
from clustering_flows.cli import main, run
from clustering_flows.relay import pass_line
from clustering_flows.terminal import terminal_watch

COMMANDS = ["ingest", "inspect", "fit", "predict", "select-k", "report", "deploy"]


@pytest.fixture
def config(field_store: Path, tmp_path: Path) -> Path:
    content = {
        "source": {
            "store": str(field_store),
            "variables": ["t", "q"],
            "sample_dims": ["time", "lat", "lon"],
            "mask": "sea",
        },
        "model": {"k": 4},
        "output": {"store": str(tmp_path / "out"), "report": False},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def without_times(page: Path) -> str:
    """The text of the report without the time that making it took, which differs each time."""
    text = re.sub(r"<tr><th scope=\"row\">time: .*?</tr>", "", page.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<b>[\d.]+ (s|min)</b>", "", text))


def summary(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_all_that_can_be_given(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"Example: clustering {command} " in out
    assert "--json" in out
    assert ("--set" in out) == (command in ("inspect", "fit", "predict", "select-k", "deploy"))
    assert ("--no-prefect" in out) == (command in ("fit", "predict", "select-k"))
    assert err == ""


@pytest.mark.parametrize("tokens", [["--help"], []], ids=["help", "nothing"])
def test_the_overview_lists_every_command(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tokens) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert "--debug" in out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == clustering.__version__


@pytest.mark.parametrize(("tokens", "code"), [(["--version"], 0), (["fti"], 2), (["report", "nowhere"], 1)], ids=str)
def test_the_exit_code_shows_how_it_went(tokens: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        main(tokens)
    assert caught.value.code == code


def test_the_last_line_of_a_fit_is_its_record(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(config), "--no-prefect", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == json.loads((tmp_path / "out" / "run.json").read_text())
    printed = "\n".join(out.splitlines()[:-1])
    assert str(tmp_path / "out") in printed
    assert "report.html" not in printed
    # Without a terminal, progress is printed as plain lines.
    assert "\x1b" not in err
    assert "\r" not in err
    assert re.search(r"^pass   1 ", err, re.MULTILINE)
    assert err.startswith("source ")


def test_without_being_asked_no_json_is_printed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(config), "--no-prefect"]) == 0
    assert "{" not in capsys.readouterr().out


def test_keys_are_set_from_the_command_line_in_turn(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--set", "model.k=2", "--set", "model.k=3", "--set", "fit.seed=5", "--set", "source.isel={time: [0, 1]}"]
    assert run(["fit", str(config), *sets, "--no-prefect", "--json"]) == 0
    record = summary(capsys)
    assert (record["k"], record["seed"], record["config"]["source"]["isel"]) == (3, 5, {"time": [0, 1]})


def test_predicting_equals_the_fits_own_prediction(
    config: Path, field_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fit", str(config), "--no-prefect"]) == 0
    new = [
        "--set",
        f"output.store={tmp_path / 'new'}",
        "--set",
        "source.isel={time: {start: 3}}",
        "--set",
        "source.mask=",
    ]
    assert run(["predict", str(tmp_path / "out"), str(config), *new, "--no-prefect", "--json"]) == 0
    record = summary(capsys)
    fit = clustering.load_fit(tmp_path / "out")
    labels = fit.predict(
        field_store, variables=["t", "q"], sample_dims=["time", "lat", "lon"], isel={"time": {"start": 3}}
    )
    with xr.open_zarr(tmp_path / "new" / "labels.zarr", consolidated=False, chunks=None) as stored:
        assert np.array_equal(stored["labels"], labels)
        assert np.array_equal(stored["time"], labels["time"])
    assert record["n_rows"] == labels.size
    assert record == json.loads((tmp_path / "new" / "run.json").read_text())


def test_a_report_is_made_anew(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(config), "--no-prefect", "--set", "output.report=true"]) == 0
    page = tmp_path / "out" / "report.html"
    assert f"report     {page}" in capsys.readouterr().out
    before = without_times(page)
    page.write_text("spoilt")
    assert run(["report", str(tmp_path / "out"), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"report: {page}"
    assert json.loads(out.splitlines()[-1]) == {"report": str(page)}
    assert without_times(page) == before


def test_inspecting_prints_the_layout_and_writes_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run(["inspect", str(config), "--json"]) == 0
    out, err = capsys.readouterr()
    *lines, last = out.splitlines()
    assert [line for line in err.splitlines() if "compiling" not in line] == []
    assert lines[0] == "variable   t (time 12, lat 9, lon 10) float32, chunks 5 × 4 × 10"
    assert "samples    time 12, lat 9, lon 10: 1,080 cells" in lines
    inspection = json.loads(last)
    assert inspection["sample_dims"] == {"time": 12, "lat": 9, "lon": 10}
    assert (inspection["cells"], inspection["n_features"], inspection["row_bytes"]) == (1080, 2, 8)
    assert inspection["forecast"]["kept_share"] == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_is_ingested_and_clustered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.repeat(np.array([[0.0, 1.0], [5.0, 6.0]]), 40, axis=0)
    np.save(tmp_path / "rows.npy", rows)
    assert run(["ingest", str(tmp_path / "rows.npy"), str(tmp_path / "rows.zarr"), "--json"]) == 0
    assert summary(capsys)["variables"]["values"]["shape"] == [80, 2]
    content = {"source": {"store": str(tmp_path / "rows.zarr")}, "output": {"store": str(tmp_path / "out")}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    assert run(["fit", str(tmp_path / "job.yaml"), "--set", "model.k=2", "--no-prefect", "--json"]) == 0
    assert summary(capsys)["objective"] == 0


def test_what_ingest_leaves_out_is_named_beside_the_summary_and_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("x,w,y\n1,red,-\n2,blue,3\n")
    assert run(["ingest", str(tmp_path / "a.csv"), str(tmp_path / "a.zarr"), "--json"]) == 0
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
    assert [line.split("'")[1] for line in lines] == ["w", "y"]
    content = json.loads(printed.out.splitlines()[-1])
    assert ([f"warning: {line}" for line in content["warnings"]], list(content["variables"])) == (lines, ["x"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"w\nred\n"),
        ("a.csv", b""),
        ("a.csv", b"x,y\n1,2\n3\n"),
        ("a.npy", b"\x93NUMPY\x01\0"),
        ("a.npz", b"PK\x03\x04"),
        ("a.parquet", b"PAR1PAR1"),
        ("a.nc", b"CDF\x01\0\0"),
        ("a.h5", b"\x89HDF\r\n\x1a\n"),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
        ("a.tif", b"II*\0\x08\0\0\0"),
        ("a.gif", b"GIF89a"),
        ("a.xyz", b"1"),
    ],
)
def test_a_file_of_which_nothing_can_be_taken_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert run(["ingest", str(tmp_path / name), str(tmp_path / "out.zarr")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line
    assert not re.search(r"\w+(Error|Exception)\b", line)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_the_lectures_mixture_is_drawn_found_again_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = Path(__file__).parents[2] / "configs"
    parameters = str(configs / "parameters" / "lecture-mixture.yaml")
    assert run(["ingest", "mixture", "demo/lecture.zarr", "--parameters", parameters]) == 0
    assert run(["fit", str(configs / "lecture.yaml"), "--no-prefect", "--json"]) == 0
    record = summary(capsys)
    assert (record["kind"], record["k"], record["n_rows"], record["converged"]) == ("gaussian_mixture", 3, 500, True)
    with (
        xr.open_zarr("demo/lecture.zarr", consolidated=False, chunks=None) as drawn,
        xr.open_zarr("demo/lecture/labels.zarr", consolidated=False, chunks=None) as fitted,
    ):
        assert adjusted_rand_score(drawn["labels"].values, fitted["labels"].values) > 0.6
    page = Path("demo/lecture/report.html").read_text()
    assert "<h3>Samples</h3>" in page
    assert "samples from p(x | z)" in page
    assert run(["report", "demo/lecture"]) == 0
    assert without_times(Path("demo/lecture/report.html")).count("<h3>Samples</h3>") == 1


def test_without_prefect_nothing_of_it_is_imported_and_no_server_starts(config: Path, tmp_path: Path) -> None:
    fit = f"from clustering_flows.cli import run; code = run(['fit', {str(config)!r}, '--no-prefect']); "
    look = "import sys; sys.exit(code or any(name.split('.')[0] == 'prefect' for name in sys.modules))"
    home = tmp_path / "prefect"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", fit + look],
        env={**os.environ, "PREFECT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert not home.exists()


def test_help_and_mistakes_load_nothing_heavy(tmp_path: Path) -> None:
    look = """
import sys
from clustering_flows.cli import run
codes = [run(["fit", "--help"]), run(["fit", "nowhere.yaml"]), run(["--version"])]
heavy = {"prefect", "distributed", "matplotlib", "numba", "xarray", "zarr", "dask"} & set(sys.modules)
sys.exit(str((codes, heavy)) if codes != [0, 2, 0] or heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def a_pass(iteration: int = 3, **changes: Any) -> PassRecord:
    defaults = {
        "symbol": "J",
        "iteration": iteration,
        "objective": 1234.5678,
        "change": -0.01,
        "active": 1,
        "rows": 2_000_000,
        "seconds": 2.0,
        "read_stats": ReadStats(4, 8_000_000),
        "remaining_seconds": 30.0,
    }
    return PassRecord(**{**defaults, **changes})


def test_on_a_terminal_a_bar_is_drawn_and_lines_stay() -> None:
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as stream, terminal_watch(stream) as watch, connect("synchronous") as engine:
        watch.say("source [bold]in.zarr[/bold]: 80 rows")
        assert watch.step("sample", lambda: "begun") == "begun"
        with watch.working(engine):
            logging.getLogger("clustering.data").warning("chunk [c/0/0] does not decode")
        watch.warn("an empty cluster")
        watch.passed(a_pass(), StoppingRule(), 1.0)
        watch.event("published", {})
        watch.finished({}, [])
    shown = ""
    # Reading raises an error at the end, because the other end of the terminal is closed.
    with suppress(OSError):
        while part := os.read(leader, 65_536):
            shown += part.decode(errors="replace")
    os.close(leader)
    assert "source [bold]in.zarr[/bold]: 80 rows" in shown
    assert "warning: an empty cluster" in shown
    assert "warning: chunk [c/0/0] does not decode" in shown
    assert "100 % done" in shown
    assert "\x1b[" in shown


def test_elsewhere_lines_are_written_as_they_come() -> None:
    stream = io.StringIO()
    with terminal_watch(stream) as watch, connect("synchronous") as engine:
        watch.say("source in.zarr")
        watch.warn("an empty cluster")
        assert watch.step("fit", lambda: "fitted") == "fitted"
        watch.passed(a_pass(), StoppingRule(), 1.25)
        with watch.working(engine):
            logging.getLogger("clustering.data").warning("chunk %r does not decode", "t/c/0/0")
        watch.event("published", {})
        watch.finished({}, [])
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["source in.zarr", "warning: an empty cluster"]
    assert lines[2:] == [pass_line(a_pass(), 1.25), "warning: chunk 't/c/0/0' does not decode"]


def test_the_line_of_a_pass_says_what_was_done() -> None:
    line = pass_line(a_pass(active=2, objective=0.1 + 0.2), 1.25)
    for said in ("pass   3", "2 candidates", "J 0.3", "change -1.00e-02", "2.00 M rows/s", "8.0 MB read", "reads 1.25"):
        assert said in line
    assert "about 30 s to go" in line
    first = pass_line(a_pass(1, change=None, seconds=0.0, read_stats=ReadStats(), remaining_seconds=None), 1.0)
    assert "change" not in first
    assert "nothing read" in first
    assert "to go" not in first


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (3.21, "3.2 s"), (9.99, "10.0 s"), (42, "42 s"), (200, "3 min"), (7200, "2.0 h")],
    ids=str,
)
def test_times_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1536, "1.5 KiB"),
        (2**30, "1.0 GiB"),
        (5 * 2**40, "5.0 TiB"),
        (2**60, "1,048,576.0 TiB"),
    ],
    ids=str,
)
def test_sizes_read_well(n: int, text: str) -> None:
    assert size(n) == text
