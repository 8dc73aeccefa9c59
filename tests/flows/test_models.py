from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from s3 import Bucket

from clustering.config import check_config
from clustering.options import GateOptions
from clustering.run.job import run_fit
from clustering.storage import checkpoints, versions
from clustering.storage.bucket_output import open_output
from clustering.storage.paths import write_json
from clustering_flows.cli import run
from clustering_flows.models import _version_lines, _version_row
from tests.run.notes import Notes
from tests.storage.outputs import LATER, add, publish
from tests.storage.test_checkpoints import IDENTITY, one

VERBS = {
    "list": "OUT",
    "show": "OUT [ARGS]",
    "diff": "OUT A B",
    "promote": "OUT RUN",
    "rollback": "OUT",
    "prune": "OUT",
}
A1, A2, B1, B2 = (word.ljust(12, "0") for word in ("a1", "a2", "b1", "b2"))
FACTS = {"kind": "kmeans", "k": 2, "n_rows": 6000, "objective": 1.5, "iterations": 4}


def said(tokens: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> list[str]:
    """The lines that a command prints."""
    assert run(["models", *tokens]) == code
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out.splitlines()


def printed_json(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """The JSON that a command prints on its last line."""
    return json.loads(said([*tokens, "--json"], capsys)[-1])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of two fits: one of three clusters, and one of two clusters of the changed source."""
    folder = tmp_path_factory.mktemp("fitted")
    rows = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], 40, axis=0) + np.tile([[-1.0], [1.0]], (60, 2))
    for k, shift in ((3, 0.0), (2, 1.0)):
        data = xr.Dataset({"x": (("row", "feature"), rows + shift)})
        data.to_zarr(folder / "rows.zarr", mode="w", consolidated=False, zarr_format=3)
        content = {
            "source": {"store": str(folder / "rows.zarr"), "sample_dims": ["row"]},
            "model": {"k": k},
            "output": {"store": str(folder / "out"), "overwrite": True, "report": False},
        }
        run_fit(check_config(content), Notes())
    return folder / "out"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output of small versions a1, a2, b1, in turn."""
    output = open_output(tmp_path / "out")
    for day, name in enumerate((A1, A2, B1), 1):
        publish(output, name, day)
    return tmp_path / "out"


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(said([verb, "--help"], capsys))
    assert f"Example: clustering models {verb} runs/photo" in text
    assert text.splitlines()[0].endswith(VERBS[verb])
    assert "--json" in text
    assert "URL of a bucket" in text


@pytest.mark.parametrize("tokens", [["--help"], []], ids=["help", "nothing"])
def test_the_overview_lists_every_verb(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(tokens, capsys)
    assert lines[0] == "Usage: clustering models COMMAND"
    assert all(any(line.startswith(f"│ {verb} ") for line in lines) for verb in VERBS)


def test_versions_are_listed_with_what_they_are(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = printed_json(["list", str(fitted)], capsys)
    records = [version.record for version in versions.list_versions(open_output(fitted))]
    keys = ("run", "finished_at", "status", "kind", "k", "n_rows", "objective", "iterations")
    assert [{key: one[key] for key in keys} for one in listed] == [{key: r[key] for key in keys} for r in records]
    assert sorted(one["k"] for one in listed if one["current"]) == [2]
    for one_of in listed:
        folder = fitted / "versions" / one_of["run"]
        assert one_of["bytes"] == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_table_marks_the_current_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = open_output(tmp_path / "out")
    with output.locked():
        add(output, A1, 1, **FACTS)
        versions.promote(output, A1)
        add(output, B2, 2, **{**FACTS, "k": 16, "status": "held"})
    lines = said(["list", str(tmp_path / "out")], capsys)
    sizes = [f"{version.bytes:,} B" for version in versions.list_versions(output)]
    assert lines == [
        "  run           finished (UTC)       status    kind     k   rows  objective  passes   size",
        f"  {B2}  2026-01-02 00:00:00  held      kmeans  16  6,000        1.5       4  {sizes[0]}",
        f"* {A1}  2026-01-01 00:00:00  finished  kmeans   2  6,000        1.5       4  {sizes[1]}",
    ]


def test_a_version_is_shown_with_its_clusters_and_their_names(
    fitted: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(fitted, copy, symlinks=True)
    write_json(copy / "names.json", {"2": {"name": "deep convection", "colour": "#1f77b4"}})
    shown = printed_json(["show", str(copy)], capsys)
    output = open_output(copy)
    record = output.read_json("run.json")
    assert (shown["run"], shown["current"], shown["promoted_at"]) == (output.finished, True, record["promoted_at"])
    assert {key: shown[key] for key in ("comparison", "gate", "warnings", "remarks")} == {
        key: record[key] for key in ("comparison", "gate", "warnings", "remarks")
    }
    assert [c["cluster"] for c in shown["clusters"]] == [1, 2]
    assert sorted(c["share"] for c in shown["clusters"]) == pytest.approx([1 / 3, 2 / 3])
    assert shown["clusters"][1] | {"share": 0} == {
        "cluster": 2, "share": 0, "name": "deep convection", "colour": "#1f77b4"
    }  # fmt: skip
    lines = said(["show", str(copy)], capsys)
    assert lines[0] == f"run        {output.finished}, current"
    assert lines[1].startswith("status     finished, ")
    assert lines[4] == f"model      kmeans, 2 clusters of 120 rows, {record['iterations']} passes"
    assert lines[5] == f"objective  {record['objective']:.12g}"
    assert lines[-1].split(maxsplit=3) == ["2", f"{100 * shown['clusters'][1]['share']:.2f}", "%", "deep convection"]
    earlier = printed_json(["show", str(copy), "previous"], capsys)
    assert (earlier["run"], earlier["current"], len(earlier["clusters"])) == (record["before"][0], False, 3)


def test_what_was_new_about_a_version_is_shown(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out")
    comparison = {
        "with": A1, "churn": 0.125, "largest_size_change": 0.05, "new_clusters": [4], "lost_clusters": [],
        "held_out": {"rows": 1000, "objective": 2.5, "objective_before": 2.0},
    }  # fmt: skip
    with output.locked():
        add(output, B2, 2, **{**FACTS, "status": "held"}, comparison=comparison)
    (version,) = versions.list_versions(output)
    content = _version_row(version, None)
    keys = ("promoted_at", "comparison", "warnings", "remarks")
    lines = list(_version_lines({**content, **{key: version.record.get(key) for key in keys}, "clusters": []}))
    assert (
        f"compared   with {A1}: 12.5 % of the weight changed cluster; largest change of a share 5 points; new 4"
        in lines
    )
    assert "held out   1,000 rows: objective 2.5, before 2" in lines


def test_two_versions_are_compared(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diff = printed_json(["diff", str(fitted), "previous", "current"], capsys)
    old, new = (versions.find_version(open_output(fitted), word) for word in ("previous", "current"))
    centers = [
        xr.open_dataset(str(version.path / "model.zarr"), engine="zarr", consolidated=False, chunks=None)["centers"]
        for version in (old, new)
    ]
    moved = [float(np.linalg.norm(centers[0].sel(cluster=i) - centers[1].sel(cluster=i))) for i in (1, 2)]
    assert diff["runs"] == [old.run, new.run]
    assert (diff["k"], diff["kind"], diff["rows"]) == ([3, 2], ["kmeans", "kmeans"], [120, 120])
    assert diff["objective"] == [old.record["objective"], new.record["objective"]]
    assert {key: value for key, value in diff["centers"].items() if value is not None} == pytest.approx(
        {"1": moved[0], "2": moved[1]}
    )
    assert (diff["centers"]["0"], diff["sizes"]["0"]) == (None, [pytest.approx(1 / 3), None])
    assert diff["config"] == {"model.k": [3, 2]}
    assert diff["source_changed"] is True
    same = printed_json(["diff", str(fitted), "current", new.run], capsys)
    assert (same["config"], same["source_changed"], set(same["centers"].values())) == ({}, False, {0.0})
    lines = said(["diff", str(fitted), "previous", "current"], capsys)
    assert lines[0] == f"{old.run} → {new.run}"
    assert "kind       kmeans" in lines
    assert "k          3 → 2" in lines
    assert "source     another state" in lines
    assert "config     model.k: 3 → 2" in lines
    assert ["0", "33.33", "%", "–", "–"] in [line.split() for line in lines]


def test_versions_of_other_features_have_no_distances(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(fitted, copy, symlinks=True)
    attributes = copy / "current" / "model.zarr" / "zarr.json"
    content = json.loads(attributes.read_text())
    content["attributes"]["features"][0][0] = "y"
    attributes.write_text(json.dumps(content))
    assert set(printed_json(["diff", str(copy), "previous", "current"], capsys)["centers"].values()) == {None}


def test_promoting_and_rolling_back(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(["promote", str(out), A1], capsys) == [f"{A1} is current; before, it was {B1}"]
    assert (out / "current").readlink().name == A1
    assert said(["promote", str(out), A1], capsys) == [f"{A1} is current already"]
    assert printed_json(["rollback", str(out)], capsys) == {"current": B1, "before": A1}
    assert said(["rollback", str(out)], capsys) == [f"{A2} is current; before, it was {B1}"]
    assert printed_json(["promote", str(out), "b"], capsys) == {"current": B1, "before": A2}
    assert said(["promote", str(out), "previous"], capsys) == [f"{A2} is current; before, it was {B1}"]


def test_pruning(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (old,) = (version for version in versions.list_versions(open_output(out)) if version.run == A1)
    freed = old.bytes
    assert printed_json(["prune", str(out), "--keep", "2"], capsys) == {
        "removed": [A1], "kept": [B1, A2], "bytes": freed
    }  # fmt: skip
    assert said(["prune", str(out), "--keep", "1"], capsys) == ["nothing to remove", f"kept {B1}, {A2}"]


def test_the_commands_take_urls_of_buckets(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{bucket.url}/out"
    output = open_output(url)
    for day, name in enumerate((A1, A2), 1):
        publish(output, name, day)
    assert said(["promote", url, A1], capsys) == [f"{A1} is current; before, it was {A2}"]
    assert json.loads(bucket.content("out")["run.json"])["run"] == A1
    assert said(["rollback", url], capsys) == [f"{A2} is current; before, it was {A1}"]
    assert said(["prune", url, "--keep", "1"], capsys) == ["nothing to remove", f"kept {A2}, {A1}"]


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "no such run": (["promote", "OUT", "c9"], 2, f"there is no run 'c9' in 'OUT'; allowed: {B1}, {A2}, {A1}"),
    "ambiguous": (
        ["diff", "OUT", "a", "b"], 2, f"run 'a' is the beginning of 2 names: {A2}, {A1}; give more of the name"
    ),
    "unfinished": (
        ["promote", "OUT", LATER],
        1,
        f"run '{LATER}' in 'OUT' is not finished; finish it by its own command, then try again",
    ),
    "none kept": (
        ["prune", "OUT", "--keep", "0"],
        2,
        "keep is 0; give 1 or more: the current version and the one before it stay in any case",
    ),
    "no number": (
        ["prune", "OUT", "--keep", "few"], 2, 'Invalid value for --keep: unable to convert "few" into int; '
        "see clustering --help"
    ),
    "keep is not given": (
        ["prune", "OUT"], 2, 'Command "models prune" parameter --keep requires an argument; see clustering --help'
    ),
    "no output": (["list", "OUT/x"], 1, "no finished run at 'OUT/x'; name the output.store of a finished run"),
    "promoting in no output": (
        ["promote", "OUT/x", A1], 1, "no finished run at 'OUT/x'; name the output.store of a finished run"
    ),
    "rolling back in no output": (
        ["rollback", "OUT/x"], 1, "no finished run at 'OUT/x'; name the output.store of a finished run"
    ),
    "a file": (
        ["list", "OUT/run.json"], 1, "no finished run at 'OUT/run.json'; name the output.store of a finished run"
    ),
    "the web": (
        ["list", "https://example.org/out"], 2,
        "output.store is 'https://example.org/out', and results are written to a folder or a bucket; "
        "name a folder, or a URL of s3:// or gs://",
    ),
    "a verb": (["prom"], 2, 'Unknown command "prom". Did you mean "promote"? Available commands: list, show, '
               "diff, promote, rollback, prune, name; see clustering --help"),
    "too much": (["rollback", "OUT", "a1"], 2, 'Unused Tokens: [\'a1\']; see clustering --help'),
}  # fmt: skip


@pytest.mark.parametrize(("tokens", "code", "line"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_in_one_line_and_changes_nothing(
    tokens: list[str], code: int, line: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = open_output(out)
    with output.locked(lambda: LATER):
        checkpoints.save(output.checkpoints, one(3, LATER), IDENTITY)
        add(output, LATER, 9)
    before = sorted((p.relative_to(out), p.read_bytes() if p.is_file() else None) for p in out.rglob("*"))
    assert run(["models", *(token.replace("OUT", str(out)) for token in tokens)]) == code
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [f"clustering: {line.replace('OUT', str(out))}"]
    assert printed.out == ""
    assert sorted((p.relative_to(out), p.read_bytes() if p.is_file() else None) for p in out.rglob("*")) == before


def test_there_may_be_nothing_to_roll_back_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    output = open_output(out)
    publish(output, A1, 1)
    with output.locked():
        add(output, B1, 2)
    for tokens in (["rollback", str(out)], ["show", str(out), "previous"], ["promote", str(out), "previous"]):
        assert run(["models", *tokens]) == 1
        assert capsys.readouterr().err == (
            f"clustering: there is nothing to roll back to in {str(out)!r}: "
            f"no version that is left was current before {A1}; "
            f"'clustering models promote' makes any version current: {B1}, {A1}\n"
        )


def test_while_a_run_is_writing_nothing_is_switched(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_output(out).locked():
        for tokens in (["promote", str(out), A1], ["rollback", str(out)], ["prune", str(out), "--keep", "1"]):
            assert run(["models", *tokens]) == 1
            assert f"another run is writing to {str(out)!r}" in capsys.readouterr().err
    assert (out / "current").readlink().name == B1


GUIDE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def test_the_guide_names_every_verb_and_every_limit_with_its_default() -> None:
    assert set(re.findall(r"`clustering models (\w+) ", GUIDE)) == set(VERBS)
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.S)
    config = check_config({"source": {"store": "a.zarr"}, **yaml.safe_load(text)})
    assert config.output.gate == GateOptions()
    limits = dict(re.findall(r"^\| `(\w+)` \| .* \| (\S+) \|$", GUIDE, flags=re.M))
    assert limits == {
        name: "null" if limit is None else str(limit) for name, limit in GateOptions().model_dump().items()
    }


def test_the_sub_commands_are_part_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "│ models " in capsys.readouterr().out
