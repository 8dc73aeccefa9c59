from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from clustering.execution.passes import ReadStats
from clustering.execution.progress import PassProgress
from clustering.fitting.loop import PassRecord, StoppingRule
from clustering.run.progress import ALMOST, ProgressEstimator, ProgressSnapshot


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SimulatedRun:
    """A progress estimator with a clock. Time passes only where a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.course = ProgressEstimator(self.clock)
        self.seen: list[ProgressSnapshot] = []
        self.number = 0

    def after(self, seconds: float) -> ProgressSnapshot:
        self.clock.now += seconds
        self.seen.append(self.course.snapshot)
        return self.seen[-1]

    def blocks(self, seconds: float, of: int = 10, size: int = 0) -> None:
        """Go through a pass, block by block."""
        self.number += 1
        for _ in range(of):
            self.after(seconds / of)
            self.course.on_blocks(PassProgress(self.number, 1, of, size // of))
            self.after(0.0)

    def passed(self, iteration: int, remaining: float | None, seconds: float = 1.0, **more: Any) -> None:
        rule = StoppingRule(max_iterations=more.pop("max_iterations", 300))
        record = PassRecord(iteration, "J", 1.0, None, 1, 100, seconds, ReadStats(), remaining)
        self.course.on_pass(record, rule, 1.0)
        self.after(0.0)


def test_a_whole_run_goes_from_nothing_to_all_and_never_back() -> None:
    run = SimulatedRun()
    run.course.start_stage("open")
    run.after(5.0)
    run.course.start_stage("sample")
    run.blocks(10.0)
    run.after(3.0)
    run.course.start_stage("fit")
    for iteration in range(1, 31):
        run.blocks(1.0)
        run.passed(iteration, None if iteration < 5 else 30.0 - iteration)
    run.course.start_stage("label")
    run.blocks(12.0)
    run.course.start_stage("report")
    run.after(1.0)
    run.course.start_stage("finished")
    last = run.after(0.0)
    shares = [one.share for one in run.seen]
    assert shares[0] == 0.0
    assert all(before <= after for before, after in pairwise(shares))
    assert max(shares[:-1]) <= ALMOST
    assert last.share == 1.0
    assert last.outlook == ""


def test_an_early_guess_that_is_wrong_does_not_fill_the_bar() -> None:
    run = SimulatedRun()
    run.course.start_stage("sample")
    run.blocks(1.0)
    run.course.start_stage("fit")
    for iteration in range(1, 9):
        run.blocks(1.0)
        run.passed(iteration, 0.5)
    assert run.seen[-1].share < 0.7


def test_the_time_that_opening_takes_is_no_progress() -> None:
    run = SimulatedRun()
    run.after(1000.0)
    run.course.start_stage("sample")
    run.blocks(10.0)
    assert run.seen[-1].share < 0.1
    assert run.seen[-1].seconds == pytest.approx(1010.0)


def test_a_pass_is_followed_block_by_block() -> None:
    run = SimulatedRun()
    run.course.start_stage("sample")
    run.clock.now += 3.0
    run.course.on_blocks(PassProgress(7, 3, 12, 600))
    now = run.after(0.0)
    assert (now.pass_share, now.pass_seconds_left, now.bytes, now.bytes_per_second) == (
        0.25,
        pytest.approx(9.0),
        600,
        200.0,
    )
    assert now.headline == "pass 0, 25 % of it"
    assert now.outlook == "this pass: about 9.0 s to go"
    run.course.on_blocks(PassProgress(7, 9, 12, 1800))
    assert run.after(0.0).headline == "choosing starts"


def test_words_of_a_pass_that_is_over_count_no_more() -> None:
    run = SimulatedRun()
    run.course.start_stage("fit")
    run.clock.now += 1.0
    run.course.on_blocks(PassProgress(2, 1, 4, 10))
    run.course.on_blocks(PassProgress(1, 4, 4, 99))
    now = run.after(0.0)
    assert (now.pass_share, now.bytes) == (0.25, 10)


def test_blocks_done_twice_fill_a_pass_and_no_more() -> None:
    run = SimulatedRun()
    run.course.start_stage("label")
    run.clock.now += 1.0
    run.course.on_blocks(PassProgress(1, 5, 4, 0))
    assert run.after(0.0).pass_share == 1.0


def test_a_time_that_is_not_known_is_shown_as_a_bound() -> None:
    run = SimulatedRun()
    run.course.start_stage("fit")
    run.blocks(2.0)
    run.passed(1, None, seconds=2.0, max_iterations=51)
    now = run.after(0.0)
    assert now.seconds_left is None
    assert now.outlook == "at most 2 min to go"


def test_a_pass_that_was_disturbed_does_not_change_the_outlook_much() -> None:
    run = SimulatedRun()
    run.course.start_stage("fit")
    for iteration in range(1, 6):
        run.blocks(1.0)
        run.passed(iteration, 40.0)
    calm = run.after(0.0).seconds_left
    run.blocks(30.0)
    run.passed(6, 40.0 * 30, seconds=30.0)
    disturbed = run.after(0.0).seconds_left
    assert calm == pytest.approx(41.0)
    assert disturbed == pytest.approx(41.0)


def test_the_time_for_labels_is_estimated_from_the_last_pass_and_then_from_their_blocks() -> None:
    run = SimulatedRun()
    run.course.start_stage("fit")
    run.blocks(4.0)
    run.passed(1, 0.0, seconds=4.0)
    run.course.start_stage("label")
    assert run.after(1.0).seconds_left == pytest.approx(3.0)
    run.course.on_blocks(PassProgress(99, 1, 5, 0))
    now = run.after(0.0)
    assert (now.seconds_left, now.headline, now.outlook) == (
        pytest.approx(4.0),
        "labels, 20 % of them",
        "about 4.0 s to go",
    )


def test_labelling_alone_is_a_whole_run() -> None:
    run = SimulatedRun()
    run.course.start_stage("open")
    run.course.start_stage("label")
    assert run.after(0.0).seconds_left is None
    run.blocks(10.0)
    assert run.seen[-1].share == ALMOST
    assert run.seen[9].share == pytest.approx(0.4, abs=0.11)


def test_what_ends_early_says_where_it_goes_on() -> None:
    run = SimulatedRun()
    run.course.start_stage("fit")
    run.blocks(1.0)
    run.passed(3, None)
    before = run.after(0.0)
    run.course.finish()
    now = run.after(5.0)
    assert now.share == before.share
    assert now.lines[0] == "stopped after pass 3; the same job goes on from there"
    assert now.outlook == ""


def test_what_is_finished_stays_so() -> None:
    run = SimulatedRun()
    run.course.start_stage("finished")
    run.course.finish()
    assert run.after(1.0).lines == ("finished", "100 % done")


HEADLINES = {
    "open": "opening the source",
    "sample": "pass 0",
    "fit": "0 passes",
    "label": "labels",
    "report": "drawing the report",
    "finished": "finished",
}


@pytest.mark.parametrize(("stage", "headline"), HEADLINES.items())
def test_every_stage_has_its_words(stage: str, headline: str) -> None:
    run = SimulatedRun()
    run.course.start_stage(stage)
    assert run.after(0.0).headline == headline
