"""Where a job stands: how much of it is done, and how long the rest may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from threading import Lock

from clustering.execution.progress import PassProgress
from clustering.fitting.loop import PassRecord, StoppingRule
from flows.watch import duration

GUESSED_PASSES = 20
"""Passes that a fit is thought to take where nothing is known; or twice those that it has made."""
DOUBT = 0.5
"""However soon a fit seems to end, this share of the passes made is thought to be ahead."""
RECENT = 5
"""Passes that estimates are taken from: their median, as a single pass may have been disturbed."""
ALMOST = 0.99
"""What is not finished is not shown as more than this share."""


@dataclass(frozen=True)
class ProgressSnapshot:
    """What is known of a job at one moment."""

    stage: str
    """``open``, ``sample``, ``fit``, ``label``, ``report`` or ``finished``."""
    share: float
    """Estimate of what is done of the whole job, by time, in 0 … 1; it never falls."""
    seconds: float
    """Since the job began."""
    seconds_left: float | None
    """Estimated wall time to the end of the job, in seconds; None where nothing can be said yet."""
    pass_share: float | None
    """What is done of the pass under way, in 0 … 1; None between passes."""
    pass_seconds_left: float | None
    """Estimated wall time to its end, in seconds."""
    bytes: int
    """Decoded size of what was read since the job began, in bytes."""
    bytes_per_second: float
    """In the pass under way, or the last one."""
    records: tuple[PassRecord, ...]
    """Of the passes made since the job began."""
    rule: StoppingRule
    reads: float
    """Full reads of the source by the fit so far, those before an interruption included."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Where the job stands and what is ahead, in short lines."""
        done = f"{100 * self.share:.0f} % done"
        if self.records:
            done = f"{self.records[-1].symbol} {self.records[-1].objective:.6g} · {done}"
        return tuple(filter(None, (self.headline, done, self.outlook)))

    @property
    def headline(self) -> str:
        """Where the job stands, in a line."""
        part = "" if self.pass_share is None else f", {100 * self.pass_share:.0f} % of "
        if self.stage == "sample":
            whole = self.pass_share is not None and self.pass_share >= 1.0
            return "choosing starts" if whole else f"pass 0{part and part + 'it'}"
        if self.stage == "fit":
            made = self.records[-1].iteration if self.records else 0
            return f"{made} pass{'es' * (made != 1)}{part and part + 'the next'}"
        if self.stage == "label":
            return f"labels{part and part + 'them'}"
        if self.stage == "stopped":
            where = f" after pass {self.records[-1].iteration}" if self.records else ""
            return f"stopped{where}; the same job goes on from there"
        return {"open": "opening the source", "report": "drawing the report"}.get(self.stage, self.stage)

    @property
    def outlook(self) -> str:
        """How long the rest may take, in words; empty where nothing can be said."""
        if self.seconds_left is not None:
            return f"about {duration(self.seconds_left)} to go" if self.seconds_left else ""
        if self.stage == "fit" and self.records:
            last = self.records[-1]
            most = (self.rule.max_iterations - last.iteration) * last.seconds
            most = most if self.rule.max_seconds is None else min(most, self.rule.max_seconds)
            return f"at most {duration(most)} to go"
        return f"this pass: about {duration(self.pass_seconds_left)} to go" if self.pass_seconds_left else ""


class ProgressEstimator:
    """Follows a job from stage to stage. May be told and asked from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock, self._clock = Lock(), clock
        self._began = self._work_began = self._pass_began = clock()
        self._stage, self._share = "open", 0.0
        self._number = self._blocks = self._of = 0
        self._pass_bytes = self._bytes = 0
        self._rate = 0.0
        self._first_pass = 0.0
        self._records: list[PassRecord] = []
        self._rule, self._reads = StoppingRule(), 0.0

    def start_stage(self, stage: str) -> None:
        """Begin the next stage."""
        with self._lock:
            if self._stage == "open":
                # Whatever opening took, such as waiting for workers, tells nothing of the rest.
                self._work_began = self._clock()
            self._stage = stage
            self._between()

    def finish(self) -> None:
        """Take note that nothing more will be done, finished or not."""
        with self._lock:
            self._stage = self._stage if self._stage == "finished" else "stopped"

    def on_blocks(self, progress: PassProgress) -> None:
        """Take note of blocks that are finished."""
        with self._lock:
            if progress.number < self._number:
                # Of a pass that is over: a cluster passes words on late.
                return
            if progress.number > self._number:
                if self._blocks:
                    self._between()
                self._number, self._of = progress.number, progress.of
            self._blocks += progress.blocks
            self._pass_bytes += progress.bytes
            self._bytes += progress.bytes
            took = self._clock() - self._pass_began
            self._rate = self._pass_bytes / took if took else 0.0
            if self._stage == "sample" and self._blocks >= self._of:
                self._first_pass = self._first_pass or took

    def on_pass(self, record: PassRecord, rule: StoppingRule, reads: float) -> None:
        """Take the record of a pass."""
        with self._lock:
            self._records.append(record)
            self._rule, self._reads = rule, reads
            self._between()

    def _between(self) -> None:
        self._pass_began = self._clock()
        self._blocks = self._pass_bytes = 0

    @property
    def snapshot(self) -> ProgressSnapshot:
        """What is known now."""
        with self._lock:
            now = self._clock()
            elapsed, in_pass = now - self._work_began, now - self._pass_began
            part = min(1.0, self._blocks / self._of) if self._blocks else None
            pass_left = None if not part else in_pass / part - in_pass
            left, ahead = self._remaining(in_pass, pass_left)
            if self._stage == "finished":
                self._share = 1.0
            elif ahead is not None and elapsed:
                self._share = max(self._share, min(ALMOST, elapsed / (elapsed + ahead)))
            return ProgressSnapshot(
                self._stage, self._share, now - self._began, left, part, pass_left,
                self._bytes, self._rate, tuple(self._records), self._rule, self._reads,
            )  # fmt: skip

    def _remaining(self, in_pass: float, pass_left: float | None) -> tuple[float | None, float | None]:
        """Estimate the time to the end of the job: as it may be told, and as good as a guess may be."""
        if self._stage == "stopped":
            return None, None
        if self._stage in ("report", "finished"):
            return 0.0, 0.0
        if self._stage == "label":
            expected = self._records[-1].seconds if self._records else self._first_pass
            unheard = max(0.0, expected - in_pass) if expected else None
            left = unheard if pass_left is None else pass_left
            return left, left
        if self._stage == "fit" and self._records:
            return self._remaining_fit(in_pass)
        one = self._first_pass if pass_left is None else in_pass + pass_left
        return None, (pass_left or 0.0) + (GUESSED_PASSES + 1) * one if one else None

    def _remaining_fit(self, in_pass: float) -> tuple[float | None, float]:
        recent, last = self._records[-RECENT:], self._records[-1]
        one = median(r.seconds for r in recent)
        # The labels take one pass more.
        labels = max(one, self._first_pass if last.read_stats.bytes else 0.0)
        if last.remaining_seconds == 0.0:
            return labels, labels
        most = self._rule.max_iterations - last.iteration
        estimates = [r.remaining_seconds / r.seconds for r in recent if r.remaining_seconds and r.seconds]
        if last.remaining_seconds is None or not estimates:
            guess = min(max(GUESSED_PASSES, last.iteration), most) * one
            return None, max(0.0, guess - in_pass) + labels
        left = max(0.0, min(median(estimates), most) * one - in_pass)
        return left + labels, max(left, min(DOUBT * last.iteration, most) * one) + labels
