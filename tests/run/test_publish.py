from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from s3 import Bucket

import clustering
from clustering.config import JobConfig, check_config
from clustering.errors import OutputError, StoreError
from clustering.run import publish as publishing
from clustering.run.job import run_fit, run_predict
from clustering.storage import layout, versions
from clustering.storage.bucket_output import open_output
from clustering_flows.cli import run
from clustering_flows.tables import summary_lines
from tests.run.notes import Crash, Notes

Make = Callable[..., JobConfig]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(2)
    data = xr.Dataset({"x": (("row", "feature"), rng.random((400, 2)))})
    path = tmp_path_factory.mktemp("rows") / "rows.zarr"
    data.to_zarr(path, consolidated=False, zarr_format=3, encoding={"x": {"chunks": (200, 2)}})
    return path


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def config(request: pytest.FixtureRequest, store: Path, tmp_path: Path) -> Make:
    """Makes configs whose output is in a folder or a bucket, and may already hold a finished version."""
    out = str(tmp_path / "out") if request.param == "folder" else f"{request.getfixturevalue('bucket').url}/out"

    def make(**output: Any) -> JobConfig:
        content: dict[str, Any] = {
            "source": {"store": str(store), "sample_dims": ["row"]},
            "model": {"k": 3},
            "fit": {"restarts": 1, "max_iterations": 3, "init": "random", "sample_rows": 50},
            "compute": {"workers": 1},
            "output": {"store": out, "report": False, "overwrite": True, **output},
        }
        return check_config(content)

    return make


def compared(monkeypatch: pytest.MonkeyPatch, **comparison: Any) -> None:
    """Say how a version compares with the current one."""
    record = publishing._record
    monkeypatch.setattr(publishing, "_record", lambda *given: {**record(*given), "comparison": comparison})


FAR = {"with": "a", "churn": 0.5, "sizes": {}, "largest_size_change": 0.0, "new_clusters": [], "lost_clusters": []}
NEAR = {**FAR, "churn": 0.01}
BEYOND = "50 % of the weight changed its cluster, above output.gate.churn, 0.2"


def promotion(job: JobConfig, name: str) -> str:
    return f"clustering models promote {job.output.store} {name}"


def test_by_default_a_new_version_is_the_current_one(config: Make) -> None:
    watch, job = Notes(), config()
    first = run_fit(job, Notes())
    second = run_fit(job, watch)
    output = open_output(job.output.store)
    assert (first["status"], first["before"], first["gate"]) == ("finished", [], None)
    assert (second["status"], second["before"], output.finished) == ("finished", [first["run"]], second["run"])
    assert second["finished_at"] <= second["promoted_at"]
    assert output.read_json("run.json") == second
    assert {version.run for version in versions.list_versions(output)} == {first["run"], second["run"]}
    assert clustering.load_fit(job.output.store).objective == second["objective"]
    ((name, payload),) = watch.events
    assert (name, payload["run"], payload["current"], payload["before"]) == (
        "model.published", second["run"], second["run"], first["run"]
    )  # fmt: skip
    assert (payload["store"], payload["reasons"], payload["remedy"]) == (job.output.store, [], None)


def test_the_gate_holds_what_is_beyond_a_limit_and_says_how_to_promote_it(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, watch = config(publish="gate", report=True), Notes()
    first = run_fit(job, Notes())
    # There was nothing to be compared with.
    assert (first["status"], first["gate"]) == ("finished", None)
    compared(monkeypatch, **FAR)
    held = run_fit(job, watch)
    output = open_output(job.output.store)
    assert output.finished == first["run"]
    assert output.read_json("run.json") == first
    place = output.staging(held["run"])
    assert layout.read_record(place) == held
    assert held["status"] == "held"
    assert held["gate"] == {
        "reasons": [BEYOND], "unchecked": ["objective"],
        "limits": {"objective": 0.01, "sizes": 0.1, "churn": 0.2, "clusters": None},
    }  # fmt: skip
    sentence = (
        f"held back, and {first['run']} stays the current version: {BEYOND}; "
        f"'{promotion(job, held['run'])}' makes it the current version all the same"
    )
    assert held["warnings"][-1] == sentence
    assert sentence in watch.said
    lines = list(summary_lines(held))
    assert f"warning    {sentence}" in lines
    assert f"output     {place}" in lines
    assert f"report     {place / 'report.html'}" in lines
    assert BEYOND in (place / "report.html").read_bytes().decode()
    assert watch.events == [
        (
            "model.held",
            {
                "store": job.output.store, "run": held["run"], "current": first["run"], "before": first["run"],
                "kind": "kmeans", "k": 3, "n_rows": 400, "objective": held["objective"], "reasons": [BEYOND],
                "remedy": promotion(job, held["run"]),
            },
        )
    ]  # fmt: skip


def test_the_remedy_promotes_what_was_held(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job, watch = config(publish="gate"), Notes()
    first = run_fit(job, Notes())
    compared(monkeypatch, **FAR)
    held = run_fit(job, watch)
    assert run(shlex.split(watch.events[0][1]["remedy"])[1:]) == 0
    output = open_output(job.output.store)
    assert output.finished == held["run"]
    record = output.read_json("run.json")
    assert (record["status"], record["before"], record["gate"]) == ("finished", [first["run"]], held["gate"])


def test_a_run_that_was_held_is_not_taken_for_unfinished(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = config(publish="gate")
    run_fit(job, Notes())
    compared(monkeypatch, **FAR)
    held, again = run_fit(job, Notes()), Notes()
    output = open_output(job.output.store)
    assert versions.unfinished(output) is None
    assert run_fit(job, again)["run"] != held["run"]
    assert not [line for line in again.said if "continuing" in line]
    assert len(versions.list_versions(output)) == 3
    with pytest.raises(OutputError, match=r"holds a finished run; set output\.overwrite to true to make another"):
        run_fit(config(publish="gate", overwrite=False), Notes())
    # Predictions are held in the same way, and leave the checkpoints of the current fit alone.
    predicted = run_predict(job.output.store, job, Notes())
    assert predicted["status"] == "held"
    assert len(versions.list_versions(output)) == 4


def test_what_is_within_the_limits_is_published_with_what_was_not_checked(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, watch = config(publish="gate"), Notes()
    run_fit(job, Notes())
    compared(monkeypatch, **NEAR)
    record = run_fit(job, watch)
    assert (record["status"], record["gate"]["reasons"]) == ("finished", [])
    assert open_output(job.output.store).finished == record["run"]
    assert record["remarks"][-1] == "not measured, and so not checked: output.gate.objective"
    assert watch.events[0][0] == "model.published"


def test_by_hand_every_version_but_the_first_waits_for_a_person(config: Make) -> None:
    job, watch = config(publish="manual"), Notes()
    first = run_fit(job, Notes())
    waiting = run_fit(job, watch)
    assert (first["status"], waiting["status"], waiting["gate"]) == ("finished", "waiting", None)
    assert open_output(job.output.store).finished == first["run"]
    assert waiting["remarks"][-1] == (
        f"it waits for a person, and {first['run']} stays the current version: "
        f"'{promotion(job, waiting['run'])}' makes it the current version"
    )
    name, payload = watch.events[0]
    assert (name, payload["current"], payload["remedy"]) == (
        "model.waiting", first["run"], promotion(job, waiting["run"])
    )  # fmt: skip


def test_so_many_versions_stay_and_the_one_that_was_just_made(config: Make) -> None:
    made = [run_fit(config(keep=2), Notes())["run"] for _ in range(3)]
    output = open_output(config().output.store)
    assert {version.run for version in versions.list_versions(output)} >= set(made[1:])
    assert len(versions.list_versions(output)) == 2
    waiting = [run_fit(config(keep=1, publish="manual"), Notes())["run"] for _ in range(2)]
    # The current one, the one before it, and the latest.
    assert {version.run for version in versions.list_versions(output)} == {made[2], made[1], waiting[1]}
    run_fit(config(keep=None), Notes())
    assert len(versions.list_versions(output)) == 4


def test_a_run_killed_before_the_switch_goes_on_to_it(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job, watch = config(), Notes()
    first = run_fit(job, Notes())
    output = open_output(job.output.store)

    def killed(*_: Any) -> Any:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(versions, "promote", killed)
        with pytest.raises(Crash):
            run_fit(job, Notes())
    # Results that are fully written are no version until it is decided whether to publish them.
    assert [version.run for version in versions.list_versions(output)] == [first["run"]]
    record = run_fit(job, watch)
    assert any(f"continuing unfinished run {record['run']}" in line for line in watch.said)
    assert (output.finished, record["before"]) == (record["run"], [first["run"]])


@pytest.mark.slow
def test_a_version_is_worth_more_than_the_room_that_old_ones_take(bucket: Bucket, store: Path) -> None:
    content = {
        "source": {"store": str(store), "sample_dims": ["row"]},
        "model": {"k": 2},
        "fit": {"restarts": 1, "max_iterations": 1},
        "output": {"store": f"{bucket.url}/out", "report": False, "overwrite": True, "keep": 1},
    }
    job, watch = check_config(content), Notes()
    for _ in range(2):
        run_fit(job, Notes())

    def refused(*_: Any) -> Any:
        raise StoreError("cannot write to s3://b: 403")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(layout, "remove_version", refused)
        record = run_fit(job, watch)
    assert open_output(job.output.store).finished == record["run"]
    assert (
        "old versions could not be removed (cannot write to s3://b: 403); 'clustering models prune' tries again"
        in watch.said
    )
    assert watch.events[0][0] == "model.published"


def test_a_name_with_spaces_is_quoted_in_the_remedy() -> None:
    assert publishing.promotion("my runs/out", "a1") == "clustering models promote 'my runs/out' a1"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "policy": ({"publish": "never"}, "output.publish is 'never'; allowed: always, gate, manual"),
    "unknown limit": ({"gate": {"objectiv": 1}}, "unknown key 'output.gate.objectiv'; did you mean 'objective'"),
    "below zero": ({"gate": {"churn": -0.1}}, "output.gate.churn is -0.1; 0 or more is needed"),
    "more than all": ({"gate": {"sizes": 20}}, "output.gate.sizes is 20; 1 or less is needed"),
    "no number": ({"gate": {"objective": True}}, "output.gate.objective is true; a number is needed"),
    "no section": (
        {"gate": 0.1},
        "output.gate is 0.1; it is a section; allowed keys: objective, sizes, churn, clusters",
    ),
    "nothing kept": ({"keep": 0}, "output.keep is 0; 1 or more is needed"),
}


@pytest.mark.parametrize(("output", "said"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_policy_is_reported_in_one_line(
    output: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"source": {"store": "a.zarr"}, "output": {"store": "out", **output}}))
    assert run(["fit", str(path), "--no-prefect"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line), line
