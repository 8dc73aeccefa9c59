from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from clustering.cluster_options import AddressCluster, SlurmOptions
from clustering.config import JobConfig, OutputSection, SourceSection, check_config
from clustering.errors import ConfigError, SourceError
from clustering.option_texts import option_texts
from clustering.option_values import holds_path
from clustering.options import ComputeOptions
from clustering.run.job import run_fit
from clustering_flows.cli import run
from clustering_flows.deploy import deployed_lines, preflight_errors, repeated, seconds, settled, unseen
from clustering_flows.server import deploy
from tests.run.notes import Crash, Notes

# Nothing listens at this address. Checks that need no server work all the same.
DEAD = "http://127.0.0.1:9/api"


@pytest.fixture
def content(field_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A job with relative paths, as users write them."""
    monkeypatch.chdir(tmp_path)
    return {
        "source": {"store": field_store.name, "variables": ["t"], "sample_dims": ["time", "lat"]},
        "model": {"k": 3},
        "output": {"store": "out", "report": False},
    }


@pytest.fixture
def job(content: dict[str, Any]) -> str:
    Path("job.yaml").write_text(yaml.safe_dump(content))
    return "job.yaml"


def changed(content: dict[str, Any], **sections: dict[str, Any]) -> JobConfig:
    return check_config(content | {name: content.get(name, {}) | keys for name, keys in sections.items()})


@pytest.mark.parametrize(
    ("interval", "expected"), [("90", 90), ("90s", 90), ("30m", 1800), ("1h", 3600), ("2 d", 172_800), (" 5 ", 5)]
)
def test_intervals_are_read_in_seconds(interval: str, expected: int) -> None:
    assert seconds(interval) == expected


@pytest.mark.parametrize("interval", ["0", "0m", "-5", "", "h", "1.5h", "1h30m", "soon", "1w"])
def test_what_is_no_interval_is_refused(interval: str) -> None:
    with pytest.raises(ConfigError, match="it has to be 1 or more seconds"):
        seconds(interval)


def test_paths_of_this_machine_are_led_from_its_root(content: dict[str, Any], tmp_path: Path) -> None:
    placed = settled(changed(content, compute={"scratch": "scratch"}))
    assert placed.source.store == str(tmp_path / "field.zarr")
    assert placed.output.store == str(tmp_path / "out")
    assert placed.compute.scratch == str(tmp_path / "scratch")
    assert settled(placed) == placed


@pytest.mark.parametrize(
    "cluster",
    [
        {"scheduler_file": "HERE/s.json"},
        {"address": "tls://a:1", "ca_file": "HERE/ca.pem", "cert_file": "HERE/c.pem", "key_file": "/k.pem"},
        {"slurm": {"logs": "HERE/logs", "queue": "long"}},
        {"class": "dask_jobqueue.PBSCluster", "options": {"queue": "long"}},
    ],
)
def test_paths_of_a_cluster_are_made_absolute_too(
    content: dict[str, Any], tmp_path: Path, cluster: dict[str, Any]
) -> None:
    text = json.dumps(cluster)
    relative, absolute = (json.loads(text.replace("HERE/", folder)) for folder in ("", f"{tmp_path}/"))
    expected = changed(content, compute={"cluster": absolute})
    assert settled(changed(content, compute={"cluster": relative})).compute == expected.compute


@pytest.mark.parametrize(
    "section",
    [SourceSection, OutputSection, ComputeOptions, AddressCluster, SlurmOptions],
    ids=lambda one: one.__name__,
)
def test_every_option_that_is_described_as_a_place_is_marked_as_a_path(section: Any) -> None:
    described = {
        name
        for name, text in option_texts(section).items()
        if re.match("(path|file|folder|pem file)\\b", text, flags=re.IGNORECASE)
    }
    assert described
    assert described == {name for name, option in section.model_fields.items() if holds_path(option)}


def test_urls_stay_as_they_are(content: dict[str, Any]) -> None:
    config = changed(content, source={"store": "s3://data/x.zarr"}, output={"store": "gs://runs/x"})
    assert settled(config) == config


def test_a_path_from_here_and_one_from_the_root_are_one_job(content: dict[str, Any]) -> None:
    config = check_config(content)
    assert config.result_keys == settled(config).result_keys


@pytest.mark.parametrize(
    ("store", "model", "said"),
    [
        ("field.zarr", None, []),
        ("nowhere.zarr", None, []),
        ("s3://data/nowhere.zarr", "s3://runs/nowhere", []),
        ("/nowhere.zarr", None, ["source.store '/nowhere.zarr' is not on this machine"]),
        ("file:///nowhere.zarr", None, ["source.store 'file:///nowhere.zarr' is not on this machine"]),
        ("field.zarr", "/nowhere", ["--model '/nowhere' is not on this machine"]),
    ],
)
def test_what_only_workers_may_have_is_named(
    store: str, model: str | None, said: list[str], content: dict[str, Any]
) -> None:
    lines = [*unseen(changed(content, source={"store": store}), model)]
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))


def test_what_is_here_is_checked(content: dict[str, Any]) -> None:
    assert preflight_errors(check_config(content), None) == ()
    with pytest.raises(SourceError, match="unknown variable 'x'"):
        preflight_errors(changed(content, source={"variables": ["x"]}), None)
    with pytest.raises(SourceError, match="no model at"):
        preflight_errors(check_config(content), "nowhere")
    # A bucket is not checked here, because only the workers may have credentials.
    assert preflight_errors(changed(content, source={"store": "s3://nobody/nothing.zarr"}), None) == ()


def test_what_is_in_the_way_is_reported(content: dict[str, Any]) -> None:
    Path("out").mkdir()
    Path("out", "notes.txt").write_text("mine")
    (said,) = preflight_errors(check_config(content), None)
    assert "holds 'notes.txt', which is not from a run" in said


def test_an_unfinished_run_of_another_config_is_reported(content: dict[str, Any], job: str) -> None:
    with pytest.raises(Crash):
        run_fit(check_config(content), Notes(crash_after=1))
    assert preflight_errors(check_config(content), None) == ()
    (said,) = preflight_errors(changed(content, model={"k": 5}), None)
    assert "an unfinished run has another config: model.k was 3 and is 5" in said


def test_a_schedule_wants_an_output_that_may_be_replaced(content: dict[str, Any]) -> None:
    (fitted,) = repeated(check_config(content), None)
    assert "output.overwrite to true" in fitted
    assert "fit.init to 'model'" in fitted
    assert [*repeated(changed(content, output={"overwrite": True}), None)] == []
    assert [*repeated(changed(content, fit={"init": "model"}), None)] == []
    assert [*repeated(check_config(content), "runs/model")] == []


SCHEDULES = {
    "a cron of four fields": (["--cron", "0 3 * *"], "cron is '0 3 * *'; it has to be five fields"),
    "a cron of words": (["--cron", "every night"], "cron is 'every night'; it has to be five fields"),
    "an hour that is none": (["--cron", "0 25 * * *"], "cron is '0 25 * * *'; it has to be five fields"),
    "two schedules": (["--cron", "0 3 * * *", "--interval", "1h"], "cron and interval are both given"),
    "no interval": (["--interval", "0"], "--interval is '0'; it has to be 1 or more seconds"),
    "no time zone": (["--cron", "0 3 * * *", "--timezone", "Europe/Berln"], "did you mean 'Europe/Berlin'?"),
    "no name": (["--name", ""], "the name of the deployment is ''"),
    "a name of two": (["--name", "a/b"], "the name of the deployment is 'a/b'"),
    "no collision": (["--collision", "wait"], 'Invalid value "wait" for --collision'),
    "a pool and none": (["--serve"], "--pool and --serve are both given"),
    "no variable": (["--set", "source.variables=[x]"], "unknown variable 'x'; allowed:"),
    "no key": (["--set", "model.kk=3"], "unknown key 'model.kk'; did you mean 'k'?"),
    "no store": (["--set", "source.store=nowhere.zarr"], "no store at"),
    "no model": (["--model", "nowhere"], "no model at"),
}


@pytest.mark.parametrize(("given", "said"), SCHEDULES.values(), ids=SCHEDULES)
def test_a_mistake_is_reported_before_a_server_is_asked(
    given: list[str], said: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with temporary_settings({PREFECT_API_URL: DEAD}):
        assert run(["deploy", job, "--pool", "local", *given]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_period_of_no_time_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"the interval is 0\.5 s; it has to be 1 s or more"):
        deploy(check_config(content), name="often", pool="local", interval=timedelta(seconds=0.5))


def test_a_pool_or_serving_is_needed(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", job]) == 2
    assert "--pool and --serve are both missing; name a work pool with --pool" in capsys.readouterr().err


ADDRESSES = {
    "none": (None, 2, "no Prefect API is configured, and a schedule needs one that stays"),
    "nobody there": (DEAD, 1, f"the Prefect API at {DEAD} does not answer ("),
    "no protocol": ("127.0.0.1:9/api", 2, "PREFECT_API_URL is '127.0.0.1:9/api'; it has to be a URL, such as http://"),
}


@pytest.mark.parametrize(("address", "code", "said"), ADDRESSES.values(), ids=ADDRESSES)
@pytest.mark.parametrize("where", [["--pool", "local"], ["--serve"]], ids=["pool", "serve"])
def test_a_missing_server_is_reported_in_one_line(
    where: list[str], address: str | None, code: int, said: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with temporary_settings({PREFECT_API_URL: address}):
        assert run(["deploy", job, *where]) == code
    out, err = capsys.readouterr()
    assert said in err
    assert "PREFECT_API_URL" in err
    assert err.count("\n") == 1
    assert out == ""


class _Page(BaseHTTPRequestHandler):
    """Answers everything with a page, as a site or a proxy does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_site_that_is_no_api_is_reported_in_one_line(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as site:
        Thread(target=site.serve_forever).start()
        address = f"http://127.0.0.1:{site.server_port}/api"
        with temporary_settings({PREFECT_API_URL: address}):
            assert run(["deploy", job, "--pool", "local"]) == 1
        site.shutdown()
    assert capsys.readouterr().err.startswith(
        f"clustering: the Prefect API at {address} does not answer as one; check PREFECT_API_URL"
    )


def test_a_password_in_the_address_is_not_shown(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_API_URL: "http://me:hunter2@127.0.0.1:9/api"}):
        assert run(["deploy", job, "--pool", "local"]) == 1
    err = capsys.readouterr().err
    assert "the Prefect API at http://127.0.0.1:9/api does not answer" in err
    assert "hunter2" not in err


def test_without_prefect_the_package_to_install_is_named(job: str) -> None:
    command = "import sys; sys.modules['prefect'] = None; from clustering_flows.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", command, "deploy", job, "--pool", "local"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 2
    assert done.stderr == (
        "clustering: a deployment needs the package 'prefect'; pip install 'zarr-clustering[prefect]'\n"
    )


def test_what_was_deployed_is_laid_out() -> None:
    made = {
        "deployment": "fit/night", "pool": "local", "cron": "0 3 * * *", "interval": None, "timezone": "Europe/Berlin",
        "collision": "cancel-new", "paused": True, "warnings": ["mind the gap"],
    }  # fmt: skip
    assert [*deployed_lines(made)] == [
        "deployed   fit/night, to work pool local",
        "schedule   0 3 * * *, Europe/Berlin, paused",
        "overlap    a run that is due while another one is under way is cancelled",
        "run now    prefect deployment run 'fit/night'",
        "worker     prefect worker start --pool 'local'",
        "warning    mind the gap",
    ]
    served = made | {"pool": None, "cron": None, "interval": 3600, "collision": "enqueue", "warnings": []}
    assert [*deployed_lines(served)] == [
        "deployed   fit/night, served by this process",
        "schedule   every 3,600 s, Europe/Berlin, paused",
        "overlap    a run that is due while another one is under way waits",
        "run now    prefect deployment run 'fit/night'",
    ]
    assert [*deployed_lines(served | {"interval": None})][1] == "schedule   none"
