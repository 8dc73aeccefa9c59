"""Checkpoints: one self-contained file after every pass, and the check whether a run may go on from it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.ownership import RUN_NAME
from clustering.data.preparation import Preparation
from clustering.errors import CheckpointError
from clustering.execution.passes import ReadStats
from clustering.fitting.acceleration import Acceleration
from clustering.fitting.drift_budget import BudgetState, Reference
from clustering.fitting.expected_passes import SampledRows
from clustering.fitting.fitted_model import Summary
from clustering.fitting.loop import Candidate, State, Stop
from clustering.models.course import Course
from clustering.models.margins import FarRows, MarginStatistics
from clustering.models.model import AnyModel
from clustering.models.param_arrays import params_to_arrays
from clustering.models.registry import model_from_json, model_to_json
from clustering.storage.model import preparation_from_arrays, preparation_to_json
from clustering.storage.paths import StoragePath, children, make_folder, write_bytes
from clustering.storage.records import read_arrays

FORMAT = 1
KEPT = 2
"""Number of checkpoints kept: the last, and the one before in case the last is damaged."""
NAMES = re.compile(r"pass-\d{5,}\.npz")
"""Pattern of the names of checkpoints."""
HALF_MADE = re.compile(rf"\.{NAMES.pattern}\.[0-9a-f]{{8}}")
"""Pattern of the names of temporary files that a killed process left."""
_ACCELERATION = ("bound", "length", "success")
_PREPARATION = ("offset", "matrix", "inverse", "explained")


@dataclass(frozen=True)
class RunFingerprint:
    """Config and source of a run; equal fingerprints give equal bits."""

    config: Mapping[str, Any]
    """The config keys that decide the result, as JSON."""
    source: str
    """Fingerprint of the source."""

    @property
    def config_sha256(self) -> str:
        """Digest of the config's canonical JSON."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that is needed to go on after a pass."""

    run: str
    """Name of the run."""
    state: State
    summary: Summary
    read_stats: ReadStats
    """Reads from the source so far."""
    seconds: Mapping[str, float]
    """Wall time by stage so far, in seconds."""
    remarks: tuple[str, ...] = ()
    """Choices of the fit for its start, in words for a user."""
    warnings: tuple[str, ...] = ()
    """Warnings about the start, for the user."""
    preparation: Preparation | None = None
    """The map from decoded to prepared rows; None where rows are used as they are."""
    budget: BudgetState = field(default_factory=BudgetState)
    """The last full read of passes with a drift budget, so that a resumed fit goes on with the same bits."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Why choices of a sweep have no start, by the name of the choice."""


def save(folder: StoragePath, checkpoint: Checkpoint, fingerprint: RunFingerprint) -> None:
    """Write a checkpoint in one step, and remove the oldest ones.

    Parameters
    ----------
    folder
        Folder of the checkpoints.
    checkpoint
        State of the fit after a pass.
    fingerprint
        Fingerprint of the run, which `latest` compares.
    """
    arrays: dict[str, NDArray[Any]] = {}
    about: list[dict[str, Any]] = []
    for i, candidate in enumerate(checkpoint.state.candidates):
        # A candidate that made no pass has an empty history, which needs its second axis all the same.
        arrays[f"{i}.history"] = np.array(candidate.history).reshape(-1, 2)
        groups = {
            "params": params_to_arrays(candidate.params),
            "sums": candidate.sums or {},
            "track": _stacked(candidate.track),
        }
        arrays |= {f"{i}.{group}.{name}": array for group, named in groups.items() for name, array in named.items()}
        about.append({"model": model_to_json(candidate.model), "stop": candidate.stop, "notes": candidate.notes})
        if candidate.acceleration is not None:
            acceleration = candidate.acceleration
            about[-1]["acceleration"] = {name: getattr(acceleration, name) for name in _ACCELERATION}
            for j, params in enumerate(acceleration.trail):
                arrays |= {f"{i}.trail{j}.{name}": array for name, array in params_to_arrays(params).items()}
    summary = asdict(checkpoint.summary)
    for name in [name for name, value in summary.items() if isinstance(value, np.ndarray)]:
        arrays[f"summary.{name}"] = summary.pop(name)
    preparation = checkpoint.preparation
    if preparation is not None:
        arrays |= {f"preparation.{name}": getattr(preparation, name) for name in _PREPARATION}
    reference = checkpoint.budget.reference
    arrays |= _budget_arrays(checkpoint.budget)
    meta = {
        "format": FORMAT,
        "arrays": sorted(arrays),
        "run": checkpoint.run,
        "config": fingerprint.config,
        "source": fingerprint.source,
        "iteration": checkpoint.state.iteration,
        "state_seconds": checkpoint.state.seconds,
        "candidates": about,
        "summary": summary,
        "reading": asdict(checkpoint.read_stats),
        "seconds": dict(checkpoint.seconds),
        "remarks": checkpoint.remarks,
        "warnings": checkpoint.warnings,
        "preparation": None if preparation is None else preparation_to_json(preparation),
        "reference": None if reference is None else model_to_json(reference.function.model),
        "failed": dict(checkpoint.failed),
    }
    # The metadata are JSON bytes in an array, because object arrays would need pickle.
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.frombuffer(json.dumps(meta, default=str).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    make_folder(folder)
    write_bytes(folder / f"pass-{checkpoint.state.iteration:05d}.npz", buffer.getvalue())
    # Old ones go only after the new one is on the disk, so that a kill leaves one to go on from.
    for old in (*_files(folder)[:-KEPT], *_files(folder, HALF_MADE)):
        old.unlink(missing_ok=True)


def clear(folder: StoragePath) -> None:
    """Remove all checkpoints of a folder.

    Parameters
    ----------
    folder
        Folder of the checkpoints.
    """
    for file in (*_files(folder), *_files(folder, HALF_MADE)):
        file.unlink(missing_ok=True)


def unfinished(folder: StoragePath, finished: str | None) -> str | None:
    """Name the unfinished run that left checkpoints; None where there is none.

    Parameters
    ----------
    folder
        Folder of the checkpoints.
    finished
        Name of the current version, whose checkpoints do not count.
    """
    loaded = next((content for file in reversed(_files(folder)) if (content := _load(file)) is not None), None)
    return None if loaded is None or loaded[0]["run"] == finished else str(loaded[0]["run"])


def latest(
    folder: StoragePath, model: AnyModel, fingerprint: RunFingerprint, finished: str | None
) -> Checkpoint | None:
    """Load the last good checkpoint of the unfinished run; None where there is none.

    Parameters
    ----------
    folder
        Folder of the checkpoints.
    model
        The model that is fitted.
    fingerprint
        Fingerprint of the run that wants to go on.
    finished
        Name of the current version, whose checkpoints do not count.

    Raises
    ------
    CheckpointError
        If the unfinished run has another config or another source; the message names the difference.
    """
    for file in reversed(_files(folder)):
        loaded = _load(file)
        if loaded is None:
            # The file is damaged, by a full disk for example. The checkpoint before it is good to go on from.
            continue
        meta, arrays = loaded
        # A run that was killed between its switch and its end leaves checkpoints, although it is finished.
        if meta["run"] == finished:
            return None
        _check_fingerprint(folder, meta, fingerprint)
        try:
            return _checkpoint_from(model, meta, arrays)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError):
            # The archive is whole, but its content has another form than `save` writes.
            continue
    return None


def _load(file: StoragePath) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """Read metadata and arrays of a checkpoint; None if it is damaged.

    The zip format has checksums of its members, but not of their names, so names are compared with a list.
    """
    try:
        arrays = read_arrays(file.read_bytes()) or {}
        meta = json.loads(arrays.pop("meta").tobytes())
        named = meta["arrays"] == sorted(arrays) and RUN_NAME.fullmatch(meta["run"]) is not None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return (meta, arrays) if named else None


def _files(folder: StoragePath, names: re.Pattern[str] = NAMES) -> list[StoragePath]:
    """List the files of a folder that match a pattern, the oldest first."""
    files = (file for file in children(folder) if names.fullmatch(file.name))
    # Numbers of passes may have six digits, and as text these would come before numbers of five.
    return sorted(files, key=lambda file: (len(file.name), file.name))


def _check_fingerprint(folder: StoragePath, meta: dict[str, Any], fingerprint: RunFingerprint) -> None:
    remedy = f"finish that run with its own config, remove {str(folder)!r} to give it up, or name another output.store"
    if meta.get("format") != FORMAT:
        raise CheckpointError(f"the unfinished run in {str(folder)!r} was made by another version; {remedy}")
    # The stored config went through JSON, which turns tuples into lists. So the present one does too.
    now = json.loads(json.dumps(fingerprint.config, default=str))
    differing = [f"{key} was {was!r} and is {is_!r}" for key, was, is_ in differences(meta.get("config"), now)]
    if differing:
        # An error is one line for a user, so it names three keys at most.
        raise CheckpointError(f"an unfinished run has another config: {'; '.join(differing[:3])}; {remedy}")
    if meta.get("source") != fingerprint.source:
        raise CheckpointError(
            "an unfinished run read another source, or other coordinates that select or label it, or was begun by an "
            f"earlier version: its fingerprint was {str(meta.get('source'))[:12]}, "
            f"this one's is {fingerprint.source[:12]}; {remedy}"
        )


def differences(then: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield where two configs differ: the key, the earlier value and the present one.

    Parameters
    ----------
    then, now
        Earlier and present config, as JSON.
    key
        Key of both inside their configs, with dots; empty at the root.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted({*then, *now}):
            yield from differences(then.get(name), now.get(name), f"{key}.{name}".strip("."))
    elif then != now:
        yield key, then, now


def _stacked(track: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.array([measures[name] for measures in track]) for name in (track[0] if track else ())}


def _checkpoint_from(model: AnyModel, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Checkpoint:
    candidates, iteration = [], meta["iteration"]
    # `isinstance` would accept a truth value for a number of passes.
    if type(iteration) is not int or iteration < 0 or not meta["candidates"]:
        raise ValueError("not a number of passes, or no candidates")
    for i, about in enumerate(meta["candidates"]):
        history = tuple((float(a), float(b)) for a, b in arrays[f"{i}.history"])
        stop = None if about["stop"] is None else Stop(about["stop"])
        params, sums, track = (_group(arrays, f"{i}.{group}.") for group in ("params", "sums", "track"))
        steps = tuple({name: array[step] for name, array in track.items()} for step in range(len(history)))
        # Earlier versions wrote no models: all candidates were of the one that is fitted.
        own = model_from_json(about["model"]) if "model" in about else model
        notes = tuple(about["notes"])
        candidate = Candidate(own, own.params_from_arrays(params), history, sums or None, steps, stop, notes)
        candidates.append(replace(candidate, acceleration=_acceleration_from(own, about, arrays, f"{i}.trail")))
    summary = _group(arrays, "summary.")
    return Checkpoint(
        meta["run"],
        State(tuple(candidates), iteration, float(meta["state_seconds"])),
        Summary(**{**meta["summary"], **summary}),
        ReadStats(**{**meta["reading"], "bad": tuple(meta["reading"]["bad"])}),
        meta["seconds"],
        _texts(meta["remarks"]),
        _texts(meta["warnings"]),
        preparation_from_arrays(meta.get("preparation"), _group(arrays, "preparation.")),
        _budget_from(meta.get("reference"), arrays),
        meta.get("failed", {}),
    )


def _budget_arrays(budget: BudgetState) -> dict[str, NDArray[Any]]:
    """Return the arrays of passes with a drift budget, by name."""
    arrays: dict[str, NDArray[Any]] = {}
    if budget.sample is not None:
        values, weights, counts = budget.sample
        arrays |= {
            "budget_sample.values": values, "budget_sample.weights": weights, "budget_sample.counts": counts
        }  # fmt: skip
    if budget.reference is not None:
        reference = budget.reference
        groups = {f"course{i}": params_to_arrays(each.params) for i, each in enumerate(reference.course.functions)}
        groups |= {f"moving{i}": each.to_arrays() for i, each in enumerate(reference.moving)}
        groups["steady"] = reference.steady.to_arrays()
        arrays["reference.budgets"] = reference.course.budgets
        arrays |= {f"reference.{group}.{name}": array for group, all_ in groups.items() for name, array in all_.items()}
    return arrays


def _budget_from(about: Any, arrays: Mapping[str, NDArray[Any]]) -> BudgetState:
    """Make the state of passes with a drift budget from stored arrays; earlier versions stored none."""
    sample = _group(arrays, "budget_sample.")
    # Without the rows to plan by and their weights, which earlier versions did not keep, plain passes follow.
    if "weights" not in sample:
        return BudgetState()
    reference = None
    if about is not None:
        model = model_from_json(about)
        functions: list[MarginStatistics[Any]] = []
        while params := _group(arrays, f"reference.course{len(functions)}."):
            function = model.for_pass(model.params_from_arrays(params))
            if not isinstance(function, MarginStatistics):
                raise TypeError("the model has no margins")
            functions.append(function)
        course = Course(tuple(functions), arrays["reference.budgets"])
        steady, *moving = (
            FarRows.from_arrays(_group(arrays, f"reference.{name}."))
            for name in ("steady", *(f"moving{i}" for i in range(len(functions))))
        )
        reference = Reference(course, steady, tuple(moving))
    return BudgetState(SampledRows(**sample), reference)


def _acceleration_from(
    model: AnyModel, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], prefix: str
) -> Acceleration | None:
    """Make the state of the acceleration; None for plain steps, which earlier versions took alone."""
    if "acceleration" not in about:
        return None
    trail = [own for j in range(2) if (own := _group(arrays, f"{prefix}{j}."))]
    state = about["acceleration"]
    length = None if state["length"] is None else float(state["length"])
    success = None if state["success"] is None else int(state["success"])
    return Acceleration(tuple(map(model.params_from_arrays, trail)), float(state["bound"]), length, success)


def _texts(texts: Any) -> tuple[str, ...]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a list of texts")
    return tuple(texts)


def _group(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
