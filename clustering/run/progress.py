"""Progress estimate: how much of a job is done, and how long the rest may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from threading import Lock

from clustering.execution.progress import PassProgress
from clustering.fitting.loop import PassRecord, StoppingRule
from clustering.report.units import duration

GUESSED_PASSES = 20
"""Assumed number of passes of a fit without an estimate; twice the finished passes where that is more."""
DOUBT = 0.5
"""Least assumed number of remaining passes, as a share of the finished ones. Estimates of the end are often early."""
RECENT = 5
"""Number of last passes whose median is used, as a single pass may have been disturbed."""
ALMOST = 0.99
"""Largest share that is shown for an unfinished job."""


@dataclass(frozen=True)
class ProgressSnapshot:
    """Progress of a job at one moment."""

    stage: str
    """``open``, ``sample``, ``fit``, ``label``, ``report``, ``finished`` or ``stopped``."""
    share: float
    """Estimated share of the whole job that is done, by time, 0 to 1; it never decreases."""
    seconds: float
    """Seconds since the job began."""
    seconds_left: float | None
    """Estimated wall time to the end of the job, in seconds; None where no estimate is possible yet."""
    pass_share: float | None
    """Finished share of the present pass, 0 to 1; None between passes."""
    pass_seconds_left: float | None
    """Estimated wall time to the end of the present pass, in seconds."""
    bytes: int
    """Decoded bytes that were read since the job began."""
    bytes_per_second: float
    """Decoded bytes per second in the present pass, or in the last one."""
    records: tuple[PassRecord, ...]
    """Records of the passes since the job began."""
    rule: StoppingRule
    reads: float
    """Number of full reads of the source by the fit, those before an interruption included."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Progress and outlook in short lines."""
        done = f"{100 * self.share:.0f} % done"
        if self.records:
            done = f"{self.records[-1].symbol} {self.records[-1].objective:.6g} · {done}"
        return tuple(filter(None, (self.headline, done, self.outlook)))

    @property
    def headline(self) -> str:
        """Present stage of the job, in a line."""
        part = "" if self.pass_share is None else f", {100 * self.pass_share:.0f} % of "
        if self.stage == "sample":
            whole = self.pass_share is not None and self.pass_share >= 1.0
            return "choosing starts" if whole else f"pass 0{part and part + 'it'}"
        if self.stage == "fit":
            passes = self.records[-1].iteration if self.records else 0
            return f"{passes} pass{'es' * (passes != 1)}{part and part + 'the next'}"
        if self.stage == "label":
            return f"labels{part and part + 'them'}"
        if self.stage == "stopped":
            where = f" after pass {self.records[-1].iteration}" if self.records else ""
            return f"stopped{where}; the same job goes on from there"
        return {"open": "opening the source", "choose": "comparing the choices", "report": "drawing the report"}.get(
            self.stage, self.stage
        )

    @property
    def outlook(self) -> str:
        """Estimate of the remaining time in words; empty where there is none."""
        if self.seconds_left is not None:
            return f"about {duration(self.seconds_left)} to go" if self.seconds_left else ""
        if self.stage == "fit" and self.records:
            last = self.records[-1]
            most = (self.rule.max_iterations - last.iteration) * last.seconds
            most = most if self.rule.max_seconds is None else min(most, self.rule.max_seconds)
            return f"at most {duration(most)} to go"
        return f"this pass: about {duration(self.pass_seconds_left)} to go" if self.pass_seconds_left else ""


class ProgressEstimator:
    """Follows a job from stage to stage, and estimates its progress. All methods may be called from any thread."""

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
        """Begin the next stage.

        Parameters
        ----------
        stage
            Name of the stage, as in `ProgressSnapshot.stage`.
        """
        with self._lock:
            if self._stage == "open":
                # The time of opening, such as a wait for workers, says nothing about the time of passes.
                self._work_began = self._clock()
            self._stage = stage
            self._between()

    def finish(self) -> None:
        """Record that the job has ended, finished or not."""
        with self._lock:
            self._stage = self._stage if self._stage == "finished" else "stopped"

    def on_blocks(self, progress: PassProgress) -> None:
        """Record finished blocks.

        Parameters
        ----------
        progress
            Blocks of the present pass.
        """
        with self._lock:
            if progress.number < self._number:
                # Messages of a cluster may arrive after their pass has ended.
                return
            if progress.number > self._number:
                # Not every pass ends with a record, so a new number also begins a pass.
                if self._blocks:
                    self._between()
                self._number, self._of = progress.number, progress.of
            self._blocks += progress.blocks
            self._pass_bytes += progress.bytes
            self._bytes += progress.bytes
            took = self._clock() - self._pass_began
            self._rate = self._pass_bytes / took if took else 0.0
            if self._stage == "sample" and self._blocks >= self._of:
                # Only pass 0 surely reads the source. Later passes of this stage may find their rows in memory.
                self._first_pass = self._first_pass or took

    def on_pass(self, record: PassRecord, rule: StoppingRule, reads: float) -> None:
        """Record a finished pass.

        Parameters
        ----------
        record
            Record of the pass.
        rule
            When the fit stops.
        reads
            Number of full reads of the source so far.
        """
        with self._lock:
            self._records.append(record)
            self._rule, self._reads = rule, reads
            self._between()

    def _between(self) -> None:
        self._pass_began = self._clock()
        self._blocks = self._pass_bytes = 0

    @property
    def snapshot(self) -> ProgressSnapshot:
        """Progress at this moment."""
        with self._lock:
            now = self._clock()
            elapsed, in_pass = now - self._work_began, now - self._pass_began
            part = min(1.0, self._blocks / self._of) if self._blocks else None
            pass_left = None if not part else in_pass / part - in_pass
            remaining, guess = self._remaining(in_pass, pass_left)
            if self._stage == "finished":
                self._share = 1.0
            elif guess is not None and elapsed:
                # Estimates go up and down. A bar that goes back would worry people.
                self._share = max(self._share, min(ALMOST, elapsed / (elapsed + guess)))
            return ProgressSnapshot(
                self._stage, self._share, now - self._began, remaining, part, pass_left,
                self._bytes, self._rate, tuple(self._records), self._rule, self._reads,
            )  # fmt: skip

    def _remaining(self, in_pass: float, pass_left: float | None) -> tuple[float | None, float | None]:
        """Estimate the seconds to the end of the job, twice: to show to users, and as a rough guess for the share.

        The first is None where no good estimate is possible.
        """
        if self._stage == "stopped":
            return None, None
        if self._stage in ("report", "finished"):
            return 0.0, 0.0
        if self._stage == "label":
            expected = self._records[-1].seconds if self._records else self._first_pass
            # Until the first block is finished, the label pass is taken to last as long as a pass before.
            by_earlier_pass = max(0.0, expected - in_pass) if expected else None
            remaining = by_earlier_pass if pass_left is None else pass_left
            return remaining, remaining
        if self._stage == "fit" and self._records:
            return self._remaining_fit(in_pass)
        one = self._first_pass if pass_left is None else in_pass + pass_left
        return None, (pass_left or 0.0) + (GUESSED_PASSES + 1) * one if one else None

    def _remaining_fit(self, in_pass: float) -> tuple[float | None, float]:
        recent, last = self._records[-RECENT:], self._records[-1]
        one = median(r.seconds for r in recent)
        # The labels take one more pass.
        labels = max(one, self._first_pass if last.read_stats.bytes else 0.0)
        if last.remaining_seconds == 0.0:
            return labels, labels
        most = self._rule.max_iterations - last.iteration
        estimates = [r.remaining_seconds / r.seconds for r in recent if r.remaining_seconds and r.seconds]
        if last.remaining_seconds is None or not estimates:
            guess = min(max(GUESSED_PASSES, last.iteration), most) * one
            return None, max(0.0, guess - in_pass) + labels
        remaining = max(0.0, min(median(estimates), most) * one - in_pass)
        return remaining + labels, max(remaining, min(DOUBT * last.iteration, most) * one) + labels
