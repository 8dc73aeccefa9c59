from __future__ import annotations

import json
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import clustering as c
from clustering.data.preparation import Preparation
from clustering.data.rows import in_memory_rows
from clustering.errors import CheckpointError
from clustering.execution.passes import PassResult, ReadStats
from clustering.fitting.acceleration import Acceleration
from clustering.fitting.fitted_model import Summary
from clustering.fitting.loop import Candidate, State, Stop, StoppingRule, iterate
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.mixture import GaussianMixture
from clustering.models.param_arrays import params_to_arrays
from clustering.storage import checkpoints
from clustering.storage.checkpoints import KEPT, Checkpoint, RunFingerprint
from clustering.storage.records import read_arrays
from tests.storage.outputs import A1, DONE, OTHER

IDENTITY = RunFingerprint({"model": {"kind": "kmeans", "k": 3}, "fit": {"seed": 0, "init": "random"}}, "5" * 64)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**62)


def same_bits(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@st.composite
def checkpoint_values(draw: st.DrawFn) -> Checkpoint:
    k, d = draw(st.integers(1, 4)), draw(st.integers(1, 4))

    def array(*shape: int) -> Any:
        return draw(hnp.arrays(np.float64, shape, elements=FINITE))

    count = draw(COUNTS)
    candidates = []
    for _ in range(draw(st.integers(1, 3))):
        history = tuple(draw(st.lists(st.tuples(FINITE, FINITE), max_size=4)))
        sums = {"weight": array(k), "first": array(k, d)} if history else None
        track = tuple({"sizes": array(k)} for _ in history)
        stop, notes = draw(st.sampled_from([None, *Stop])), tuple(draw(st.lists(st.text(), max_size=2)))

        def params() -> KMeansParams:
            return KMeansParams(array(d), array(k, d), draw(FINITE))

        acceleration = None
        if draw(st.booleans()):
            trail = tuple(params() for _ in range(draw(st.integers(0, 2))))
            length = draw(st.none() | FINITE) if trail else None
            acceleration = Acceleration(trail, draw(FINITE), length, draw(st.none() | st.integers(1, 99)))
        candidate = Candidate(KMeans(k), params(), history, sums, track, stop, notes, acceleration=acceleration)
        candidates.append(candidate)
    state = State(tuple(candidates), draw(st.integers(0, 99_999)), draw(st.floats(0, 1e6)))
    summary = Summary(draw(COUNTS), count, draw(FINITE), array(d), array(d), array(d), array(d), draw(COUNTS))
    seconds = draw(st.dictionaries(st.sampled_from(["sample", "fit"]), st.floats(0, 1e6)))
    return Checkpoint(draw(st.uuids()).hex[:12], state, summary, ReadStats(draw(COUNTS), draw(COUNTS)), seconds)


def one(iteration: int, run: str = A1) -> Checkpoint:
    rng = np.random.default_rng(iteration)
    params = KMeansParams(rng.random(2), rng.random((3, 2)))
    sums = {"weight": rng.random(3), "first": rng.random((3, 2))}
    track = ({"sizes": rng.random(3)}, {"sizes": rng.random(3)})
    candidate = Candidate(KMeans(2), params, ((3.0, 2.5), (2.0, 1.5)), sums, track)
    summary = Summary(10, 9, 9.0, rng.random(2), rng.random(2), rng.random(2), rng.random(2), 9)
    return Checkpoint(run, State((candidate,), iteration, 0.25), summary, ReadStats(4, 5), {"sample": 0.5})


@given(checkpoint_values())
def test_a_checkpoint_comes_back_to_the_last_bit(written: Checkpoint) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.save(Path(folder), written, IDENTITY)
        read = checkpoints.latest(Path(folder), KMeans(1), IDENTITY, None)
    assert read is not None
    assert (read.run, read.read_stats, read.seconds) == (written.run, written.read_stats, written.seconds)
    assert (read.state.iteration, read.state.seconds) == (written.state.iteration, written.state.seconds)
    for field in fields(Summary):
        assert same_bits(getattr(read.summary, field.name), getattr(written.summary, field.name))
    for after, before in zip(read.state.candidates, written.state.candidates, strict=True):
        assert same_bits(after.params.origin, before.params.origin)
        assert same_bits(after.params.centers, before.params.centers)
        assert same_bits(after.params.total_scatter, before.params.total_scatter)
        assert same_bits(np.array(after.history), np.array(before.history))
        assert (after.stop, after.notes) == (before.stop, before.notes)
        assert (after.sums is None) == (before.sums is None)
        for name in before.sums or {}:
            assert same_bits(after.sums[name], before.sums[name])
        assert len(after.track) == len(before.track)
        for mine, other in zip(after.track, before.track, strict=True):
            assert same_bits(mine["sizes"], other["sizes"])
        assert (after.acceleration is None) == (before.acceleration is None)
        if after.acceleration is None or before.acceleration is None:
            continue
        for name in ("bound", "length", "success"):
            assert getattr(after.acceleration, name) == getattr(before.acceleration, name)
        for mine, other in zip(after.acceleration.trail, before.acceleration.trail, strict=True):
            assert same_bits(mine.centers, other.centers)
            assert same_bits(mine.total_scatter, other.total_scatter)


def test_an_accelerated_fit_goes_on_from_each_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((400, 3)) * [1.0, 2.0, 3.0]
    model, rows, rule = GaussianMixture(3), in_memory_rows(values), StoppingRule(0.0, 9)
    params = c.fit(values, model, init=values[:3], max_iterations=1, accelerate="none").params

    def run_pass(statistics: Any) -> PassResult:
        return PassResult(tuple(make(rows) for make in statistics), ReadStats(), 1.0)

    start = State((Candidate(model, params, acceleration=Acceleration()),))
    through = [state for state, _ in iterate(start, run_pass, rule)]
    assert any(state.best.trying for state in through[:-1])
    for state in through[:-1]:
        folder = tmp_path / str(state.iteration)
        checkpoints.save(folder, replace(one(state.iteration), state=state), IDENTITY)
        read = checkpoints.latest(folder, model, IDENTITY, None)
        assert read is not None
        *_, (end, _) = iterate(read.state, run_pass, rule)
        assert end.best.history == through[-1].best.history
        for name, array in params_to_arrays(end.best.params).items():
            assert same_bits(array, params_to_arrays(through[-1].best.params)[name])


def test_a_checkpoint_of_an_earlier_version_goes_on_by_plain_steps(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, one(3), IDENTITY)
    (file,) = tmp_path.iterdir()
    with np.load(file) as archive:
        arrays = dict(archive)
    meta = json.loads(arrays["meta"].tobytes())
    assert all(about.pop("acceleration", None) is None for about in meta["candidates"])
    np.savez(file, **{**arrays, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})
    read = checkpoints.latest(tmp_path, KMeans(1), IDENTITY, None)
    assert read is not None
    assert read.state.best.acceleration is None


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for iteration in (4, 5):
        checkpoints.save(folder, one(iteration), IDENTITY)
    return folder


def latest_after(two_saved: Path, newest: bytes) -> Checkpoint | None:
    with tempfile.TemporaryDirectory() as folder:
        older, newer = sorted(two_saved.iterdir())
        (Path(folder) / older.name).write_bytes(older.read_bytes())
        (Path(folder) / newer.name).write_bytes(newest)
        return checkpoints.latest(Path(folder), KMeans(1), IDENTITY, None)


def test_the_last_checkpoint_is_where_to_go_on(two_saved: Path) -> None:
    checkpoint = checkpoints.latest(two_saved, KMeans(1), IDENTITY, None)
    assert checkpoint is not None
    assert checkpoint.state.iteration == 5


@given(st.floats(0, 1, exclude_max=True))
@example(0.0)
@example(0.999999)
def test_a_half_written_checkpoint_is_passed_over_for_the_one_before(two_saved: Path, share: float) -> None:
    whole = max(two_saved.iterdir()).read_bytes()
    checkpoint = latest_after(two_saved, whole[: int(share * len(whole))])
    assert checkpoint is not None
    assert checkpoint.state.iteration == 4


@given(st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY\x01\x00", b"\x80\x04"]), st.binary(max_size=200))
@example(b"\x93NUMPY\x01\x00", b"v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }".ljust(120) + b"\0" * 8)
def test_garbage_is_passed_over_for_the_checkpoint_before(two_saved: Path, start: bytes, rest: bytes) -> None:
    checkpoint = latest_after(two_saved, start + rest)
    assert checkpoint is not None
    assert checkpoint.state.iteration == 4


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_flipped_byte_is_noticed_or_does_not_matter(two_saved: Path, place: float, flip: int) -> None:
    content = bytearray(max(two_saved.iterdir()).read_bytes())
    content[int(place * len(content))] ^= flip
    checkpoint = latest_after(two_saved, bytes(content))
    assert checkpoint is not None
    expected = one(checkpoint.state.iteration).state.candidates[0]
    assert same_bits(checkpoint.state.candidates[0].params.centers, expected.params.centers)
    assert same_bits(checkpoint.state.candidates[0].sums["first"], expected.sums["first"])


def test_a_member_of_another_name_is_noticed(two_saved: Path) -> None:
    content = max(two_saved.iterdir()).read_bytes()
    renamed = content.replace(b"0.sums.first", b"2.sums.first")
    assert renamed != content
    checkpoint = latest_after(two_saved, renamed)
    assert checkpoint is not None
    assert checkpoint.state.iteration == 4


def test_no_checkpoint_is_found_where_all_are_damaged(two_saved: Path, tmp_path: Path) -> None:
    for file in two_saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:100])
    assert checkpoints.latest(tmp_path, KMeans(1), IDENTITY, None) is None


@pytest.mark.parametrize("made", [False, True], ids=["missing", "empty"])
def test_no_checkpoint_is_found_in_a_new_folder(made: bool, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    if made:
        folder.mkdir()
    assert checkpoints.latest(folder, KMeans(1), IDENTITY, None) is None


def test_only_the_last_checkpoints_stay(tmp_path: Path) -> None:
    for iteration in range(8):
        checkpoints.save(tmp_path, one(iteration), IDENTITY)
        assert len(list(tmp_path.iterdir())) == min(iteration + 1, KEPT)
    checkpoint = checkpoints.latest(tmp_path, KMeans(1), IDENTITY, None)
    assert checkpoint is not None
    assert checkpoint.state.iteration == 7


def test_the_checkpoints_of_the_published_run_are_no_unfinished_run(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, one(4, run=DONE), IDENTITY)
    assert checkpoints.latest(tmp_path, KMeans(1), IDENTITY, DONE) is None
    assert checkpoints.latest(tmp_path, KMeans(1), IDENTITY, OTHER) is not None


def test_clearing_removes_all(tmp_path: Path) -> None:
    for iteration in range(3):
        checkpoints.save(tmp_path, one(iteration), IDENTITY)
    checkpoints.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


OTHER_CONFIGS = {
    "value": ({"model": {"kind": "kmeans", "k": 5}, "fit": {"seed": 0, "init": "random"}}, "model.k was 3 and is 5"),
    "word": (
        {"model": {"kind": "kmeans", "k": 3}, "fit": {"seed": 0, "init": "x"}},
        "fit.init was 'random' and is 'x'",
    ),
    "key gone": ({"model": {"kind": "kmeans", "k": 3}, "fit": {"seed": 0}}, "fit.init was 'random' and is None"),
}


@pytest.mark.parametrize(("config", "named"), OTHER_CONFIGS.values(), ids=OTHER_CONFIGS)
def test_another_config_is_refused_by_the_key_that_differs(config: Any, named: str, tmp_path: Path) -> None:
    checkpoints.save(tmp_path, one(4), IDENTITY)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="another config") as caught:
        checkpoints.latest(tmp_path, KMeans(1), replace(IDENTITY, config=config), None)
    assert named in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_another_source_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, one(4), IDENTITY)
    with pytest.raises(CheckpointError, match="another source") as caught:
        checkpoints.latest(tmp_path, KMeans(1), replace(IDENTITY, source="6" * 64), None)
    assert "5" * 12 in str(caught.value)
    assert "6" * 12 in str(caught.value)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(tmp_path, one(4), IDENTITY)
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="another version"):
        checkpoints.latest(tmp_path, KMeans(1), IDENTITY, None)


def test_the_digest_of_a_config_ignores_the_order_of_keys_and_nothing_else() -> None:
    turned = {key: dict(reversed(part.items())) for key, part in reversed(IDENTITY.config.items())}
    assert replace(IDENTITY, config=turned).config_sha256 == IDENTITY.config_sha256
    others = {replace(IDENTITY, config=config).config_sha256 for config, _ in OTHER_CONFIGS.values()}
    assert len(others | {IDENTITY.config_sha256}) == 4


def test_nothing_in_a_checkpoint_is_pickled(two_saved: Path) -> None:
    for file in two_saved.iterdir():
        with np.load(file, allow_pickle=False) as stored:
            assert all(stored[name].dtype.kind in "fu" for name in stored.files)


@pytest.mark.parametrize("components", [None, 2], ids=["diagonal", "components"])
def test_the_preparation_comes_back_to_the_last_bit(components: int | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    matrix = rng.random(3 if components is None else (3, components))
    wish, facts = {"standardize": "per_feature", "pca": components}, {"n_components": components or 3}
    explained = np.zeros(0) if components is None else rng.random(components)
    before = Preparation(True, rng.random(3), matrix, rng.random(matrix.shape[::-1]), wish, facts, "words", explained)
    checkpoints.save(tmp_path, replace(one(4), preparation=before), IDENTITY)
    read = checkpoints.latest(tmp_path, KMeans(1), IDENTITY, None)
    assert read is not None
    after = read.preparation
    assert after is not None
    for name in ("offset", "matrix", "inverse", "explained"):
        assert same_bits(getattr(after, name), getattr(before, name))
    for name in ("unit_norm", "wish", "facts", "words"):
        assert getattr(after, name) == getattr(before, name)


NO_RUNS = ["", ".", "..", "../../thesis", "/home/me", "a1", "610000000000/..", "6100000000AB", None, 7, ["6"], {}]


@pytest.mark.parametrize("run", NO_RUNS, ids=repr)
def test_a_checkpoint_of_no_run_is_passed_over(run: Any, tmp_path: Path) -> None:
    """The name of such a run could lead to a path outside the output."""
    checkpoints.save(tmp_path, one(4), IDENTITY)
    checkpoints.save(tmp_path, one(5, run), IDENTITY)
    checkpoint = checkpoints.latest(tmp_path, KMeans(1), IDENTITY, None)
    assert checkpoint is not None
    assert (checkpoint.run, checkpoints.unfinished(tmp_path, None)) == (A1, A1)


@pytest.mark.parametrize("key", ["arrays", "candidates", "summary", "reading", "iteration", "remarks", "state_seconds"])
@pytest.mark.parametrize("value", [None, 7, "text", [], {"a": 1}], ids=repr)
def test_a_checkpoint_that_says_something_else_is_passed_over(key: str, value: Any, tmp_path: Path) -> None:
    checkpoints.save(tmp_path, one(4), IDENTITY)
    checkpoints.save(tmp_path, one(5), IDENTITY)
    newest = max(tmp_path.iterdir())
    arrays = read_arrays(newest.read_bytes())
    assert arrays is not None
    meta = {**json.loads(arrays.pop("meta").tobytes()), key: value}
    np.savez(newest, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    checkpoint = checkpoints.latest(tmp_path, KMeans(1), IDENTITY, None)
    assert checkpoint is not None
    whole = {"iteration": value == 7, "state_seconds": value == 7, "remarks": value == []}
    assert checkpoint.state.iteration == ((7 if key == "iteration" else 5) if whole.get(key) else 4)


def test_only_files_of_our_names_are_read_and_removed(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, one(4), IDENTITY)
    theirs = ["pass-0005.npz", "pass-00009.npz.txt", "pass-thesis.npz", "passport", ".pass-00001.npz"]
    for name in theirs:
        (tmp_path / name).write_text("precious")
    for iteration in (5, 6, 7):
        checkpoints.save(tmp_path, one(iteration), IDENTITY)
    checkpoints.clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)
