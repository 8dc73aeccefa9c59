"""The commands that manage the versions of an output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

from cyclopts import App, Parameter

from clustering.errors import OutputError, damaged
from clustering_flows.arguments import AsJson

if TYPE_CHECKING:
    from clustering.storage.versions import Version

app = App(
    name="models",
    help="List, compare, promote, take back and remove the versions of an output.",
    help_format="plaintext",
)

Store = Annotated[str, Parameter(name="OUT", help="Output of finished runs: a folder, or a URL of a bucket.")]
_RUN = "a run, the beginning of its name, or the words current and previous"
Run = Annotated[str, Parameter(name="RUN", help=f"Which version: {_RUN}.")]
First = Annotated[str, Parameter(name="A", help=f"A version: {_RUN}.")]
Second = Annotated[str, Parameter(name="B", help="Another version.")]
Keep = Annotated[int, Parameter(help="How many of the latest versions stay.")]
Colour = Annotated[str | None, Parameter(help="Such as '#1f77b4'. Default: the one it has.")]

T = TypeVar("T")
P = ParamSpec("P")


def _of_whole_records(command: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
    """Turn errors from incomplete records of a run into an `OutputError` that calls them damaged."""

    @wraps(command)
    def checked(out: str, /, *args: P.args, **options: P.kwargs) -> T:
        # A damaged record may lack any key, and each command reads other keys.
        with damaged(
            OutputError, f"the records of the versions of {out!r}", "restore the run.json, or remove that version"
        ):
            return command(out, *args, **options)

    return checked


# A function named `list` would hide the built-in in this module.
@app.command(name="list")
@_of_whole_records
def list_(out: Store, /, *, json_: AsJson = False) -> None:
    """List the versions of an output, the latest first; a star marks the current one.

    Example: clustering models list runs/photo
    """
    from clustering.storage import bucket_output, versions

    output = bucket_output.open_output(out)
    rows = [_version_row(version, output.finished) for version in versions.list_versions(output)]
    _print(_table(rows))
    if json_:
        print(json.dumps(rows))


@app.command
@_of_whole_records
def show(out: Store, run: Run = "current", /, *, json_: AsJson = False) -> None:
    """Show a version, its comparison with the previous version, and its clusters.

    Example: clustering models show runs/photo 3f2a
    """
    from clustering.storage import bucket_output, versions
    from clustering.storage.differences import clusters_of, shares
    from clustering.storage.layout import NAMES, read_json_object

    output = bucket_output.open_output(out)
    version = versions.find_version(output, run)
    names: dict[str, Any] = read_json_object(output.path / NAMES) or {}
    clusters = [
        {"cluster": int(number), "share": share, **names.get(number, {})}
        for number, share in shares(clusters_of(version)).items()
    ]
    facts = {**_version_row(version, output.finished), "clusters": clusters}
    # Records of earlier releases lack some of these keys.
    facts |= {key: version.record.get(key) for key in ("promoted_at", "comparison", "gate", "warnings", "remarks")}
    _print(_version_lines(facts))
    if json_:
        print(json.dumps(facts))


@app.command
@_of_whole_records
def diff(out: Store, a: First, b: Second, /, *, json_: AsJson = False) -> None:
    """Show the differences between two versions, from the first to the second.

    Example: clustering models diff runs/photo previous current
    """
    from clustering.storage import bucket_output, versions
    from clustering.storage.differences import differences

    output = bucket_output.open_output(out)
    difference = differences(versions.find_version(output, a), versions.find_version(output, b))
    _print(_difference_lines(difference))
    if json_:
        print(json.dumps(difference))


@app.command
@_of_whole_records
def promote(out: Store, run: Run, /, *, json_: AsJson = False) -> None:
    """Make a version the current one, even if the gate held it back.

    Example: clustering models promote runs/photo 3f2a
    """
    from clustering.storage import bucket_output, versions

    output = bucket_output.open_output(out)
    # This comes before the lock, which would create a folder for a misspelt output.
    versions.find_version(output, run)
    with versions.locked(output):
        # They are read again under the lock, because a run may have finished in the meantime.
        before, version = output.finished, versions.find_version(output, run)
        versions.promote(output, version.run)
    _print_switch(before, version.run, json_)


@app.command
@_of_whole_records
def rollback(out: Store, /, *, json_: AsJson = False) -> None:
    """Make the version before the current one current again. A second rollback goes back one version more.

    Example: clustering models rollback runs/photo
    """
    from clustering.storage import bucket_output, versions

    output = bucket_output.open_output(out)
    # As in `promote`, mistakes are found before the lock is taken.
    versions.find_version(output, "previous")
    with versions.locked(output):
        before, version = output.finished, versions.rollback(output)
    _print_switch(before, version.run, json_)


@app.command
@_of_whole_records
def prune(out: Store, /, *, keep: Keep, json_: AsJson = False) -> None:
    """Remove old versions. The current one, the one before it and unfinished runs stay in any case.

    Example: clustering models prune runs/photo --keep 3
    """
    from clustering.report.units import size
    from clustering.storage import bucket_output, versions

    output = bucket_output.open_output(out)
    # As in `promote`, mistakes are found before the lock is taken.
    versions.removable_versions(output, keep)
    with versions.locked(output):
        freed = sum(version.bytes for version in versions.removable_versions(output, keep))
        removed = [version.run for version in versions.prune(output, keep)]
        kept = [version.run for version in versions.list_versions(output)]
    print(f"removed {', '.join(removed)}: {size(freed)}" if removed else "nothing to remove")
    print(f"kept {', '.join(kept)}")
    if json_:
        print(json.dumps({"removed": removed, "kept": kept, "bytes": freed}))


@app.command
def name(run: str, cluster: int, name: str, *, colour: Colour = None) -> None:
    """Give a cluster a name, and a colour, which labels and reports show from now on.

    Example: clustering models name runs/ocean 3 "deep convection" --colour '#1f77b4'

    Parameters
    ----------
    run
        Output of a finished run: a folder, or a URL of a bucket.
    cluster
        Id of the cluster, as in the labels.
    name
        Name of the cluster; in the attributes of the labels, words are joined by underscores.
    """
    from clustering.run.naming import name_cluster
    from clustering_flows.credentials import access_of

    print(name_cluster(run, cluster, name, colour, access_of=access_of))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_switch(before: str | None, run: str, as_json: bool) -> None:
    print(f"{run} is current already" if before == run else f"{run} is current; before, it was {before}")
    if as_json:
        print(json.dumps({"current": run, "before": before}))


def _version_row(version: Version, current: str | None) -> dict[str, Any]:
    record = version.record
    return {
        "run": version.run,
        "current": version.run == current,
        "finished_at": version.finished_at or None,
        **{key: record.get(key) for key in ("status", "kind", "k", "n_rows", "objective", "iterations")},
        "bytes": version.bytes,
    }


def _table(version_rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    from clustering.report.units import size

    heads = ("  run", "finished (UTC)", "status", "kind", "k", "rows", "objective", "passes", "size")
    rows = [
        (
            f"{'*' if one['current'] else ' '} {one['run']}", _when(one["finished_at"]), str(one["status"]),
            str(one["kind"]), str(one["k"]), f"{one['n_rows']:,}", f"{one['objective']:.8g}", str(one["iterations"]),
            size(one["bytes"]),
        )
        for one in version_rows
    ]  # fmt: skip
    return _aligned(heads, rows, left=4)


def _when(moment: str | None) -> str:
    """Write a time of a record without its time zone, which is always UTC."""
    return "–" if moment is None else moment[:19].replace("T", " ")


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Format a table with its first `left` columns aligned to the left, and the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (f"{c:<{w}}" if i < left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(cells).rstrip()


def _version_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    from clustering.report.units import size

    yield f"run        {facts['run']}{', current' if facts['current'] else ''}"
    yield f"status     {facts['status']}, {size(facts['bytes'])}"
    for word, key in (("finished", "finished_at"), ("promoted", "promoted_at")):
        if facts[key]:
            yield f"{word:<10} {_when(facts[key])} UTC"
    yield f"model      {facts['kind']}, {facts['k']} clusters of {facts['n_rows']:,} rows, {facts['iterations']} passes"
    yield f"objective  {facts['objective']:.12g}"
    comparison = facts["comparison"]
    if comparison:
        yield from _news(comparison)
    for line in (*(facts["remarks"] or ()), *(facts["warnings"] or ())):
        yield f"note       {line}"
    rows = [
        (str(one["cluster"]), f"{_percent(one['share']):>8}", str(one.get("name", ""))) for one in facts["clusters"]
    ]
    yield ""
    yield from _aligned(("cluster", "   share", "name"), rows, left=3)


def _news(comparison: Mapping[str, Any]) -> Iterator[str]:
    """Format the comparison of a version with its previous version."""
    parts = [
        None if comparison.get("churn") is None else f"{100 * comparison['churn']:.3g} % of the weight changed cluster",
        f"largest change of a share {100 * comparison['largest_size_change']:.3g} points",
        *(f"{word} {', '.join(map(str, comparison[key]))}" for word, key in _MOVED if comparison.get(key)),
    ]
    yield f"compared   with {comparison['with']}: {'; '.join(filter(None, parts))}"
    held_out = comparison.get("held_out")
    if held_out:
        yield (
            f"held out   {held_out['rows']:,} rows: objective {held_out['objective']:.8g}, "
            f"before {held_out['objective_before']:.8g}"
        )


_MOVED = (("new", "new_clusters"), ("lost", "lost_clusters"))


def _difference_lines(difference: Mapping[str, Any]) -> Iterator[str]:
    a, b = difference["runs"]
    yield f"{a} → {b}"
    for name in ("kind", "k", "rows", "objective"):
        was, now = difference[name]
        yield f"{name:<10} {_number(was)}" + ("" if was == now else f" → {_number(now)}")
    yield f"source     {'another state' if difference['source_changed'] else 'the same'}"
    for key, (was, now) in difference["config"].items():
        yield f"config     {key}: {json.dumps(was)} → {json.dumps(now)}"
    moved = {number: "–" if move is None else f"{move:.6g}" for number, move in difference["centers"].items()}
    sizes = difference["sizes"].items()
    rows = [(number, _percent(was), _percent(now), moved[number]) for number, (was, now) in sizes]
    yield ""
    yield from _aligned(("cluster", "share before", "after", "center moved"), rows, left=1)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"
