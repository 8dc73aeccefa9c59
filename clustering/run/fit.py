"""The passes of a fit, from a checkpoint to the end of the loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from clustering.data.source import Source
from clustering.execution.passes import PassRunner
from clustering.fitting.drift_budget import budgeted_passes
from clustering.fitting.fitted_model import FittedModel, from_state
from clustering.fitting.loop import Stop, StoppingRule, choose_best, iterate
from clustering.fitting.recalled_passes import recalled_passes
from clustering.models.model import AnyModel
from clustering.run.watch import Watch, counted
from clustering.storage.checkpoints import Checkpoint


def fit(
    runner: PassRunner,
    checkpoint: Checkpoint,
    rule: StoppingRule,
    watch: Watch,
    save: Callable[[Checkpoint], None] = lambda _: None,
    *,
    accelerate: bool = True,
) -> Checkpoint:
    """Pass over the data until the loop stops.

    Parameters
    ----------
    runner
        Runs the passes.
    checkpoint
        Where to begin.
    rule
        When to stop.
    watch
        Receives messages and the record of every pass.
    save
        Called with the checkpoint after every pass, before the watch learns of the pass.
    accelerate
        Whether passes may go over the rows near a boundary alone; see `clustering.fitting.drift_budget`.

    Returns
    -------
    Checkpoint
        State after the last pass, with the best candidate first.
    """
    now = checkpoint
    # Pass 0 works on decoded rows, and the passes of the loop on prepared ones.
    runner = replace(runner, preparation=checkpoint.preparation)
    count = now.summary.count
    with (
        budgeted_passes(runner, count, now.budget, watch.say) if accelerate else nullcontext() as passes,
        recalled_passes(runner, count) if accelerate else nullcontext(runner) as resident,
    ):
        for state, record in iterate(checkpoint.state, resident.run if passes is None else passes.run, rule):
            seconds = {**now.seconds, "fit": now.seconds.get("fit", 0.0) + record.seconds}
            now = replace(now, state=state, read_stats=now.read_stats + record.read_stats, seconds=seconds)
            now = now if passes is None else replace(now, budget=passes.state)
            # A message about a pass promises that the pass is not lost any more.
            save(now)
            watch.passed(record, rule, now.read_stats.blocks / len(runner.plan))
            for note in record.notes:
                watch.warn(note)
    # Several candidates may need one more pass, which gives each the objective of its final params.
    state, judgement = choose_best(now.state, runner.run)
    if state is not now.state:
        reading = now.read_stats if judgement is None else now.read_stats + judgement.read_stats
        now = replace(now, state=state, read_stats=reading)
        # A kill in the label pass then costs no second comparison.
        save(now)
    best = now.state.best
    # A fit without a pass has no objective, as for max_iterations: 0.
    text = "" if best.sums is None else objective_text(best.model, best.objective, float(best.sums["weight"].sum()))
    watch.say(f"{_REASONS[best.stop or Stop.CONVERGED]} after {counted(len(best.history), 'pass')}{text}")
    return now


def objective_text(model: AnyModel, objective: float, weight: float) -> str:
    """Write the objective for the end of a line.

    Parameters
    ----------
    model
        The model.
    objective
        Objective as the passes add it up.
    weight
        Total weight of the rows.
    """
    return f", {model.objective.symbol} {model.to_user_objective(objective, weight):.10g}"


_REASONS = {
    Stop.CONVERGED: "converged (nothing changes any more)",
    Stop.TOLERANCE: "converged (within the tolerance)",
    Stop.REFRESH: "stopped as fit.refresh asks",
    Stop.MAX_ITERATIONS: "stopped by max_iterations",
    Stop.MAX_SECONDS: "stopped by max_seconds",
}


def fitted_model(checkpoint: Checkpoint, source: Source, n_blocks: int, *, drawn: bool) -> FittedModel:
    """Make the fitted model of a fit that has ended.

    Parameters
    ----------
    checkpoint
        State after the last pass.
    source
        Source of the rows.
    n_blocks
        Number of blocks of the plan.
    drawn
        Whether the starts were drawn at random, so that the clusters may be put in an order.
    """
    reading = checkpoint.read_stats
    made = from_state(
        checkpoint.state.best.model,
        checkpoint.state,
        source.features,
        checkpoint.summary,
        reading.blocks / n_blocks,
        reading.bytes,
        checkpoint.remarks,
        checkpoint.warnings,
        reading.bad,
        checkpoint.preparation,
        source.about,
        (source.sample_dims, source.feature_dims),
        drawn=drawn,
    )
    return replace(made, marginalized=source.missing == "marginalize", reading=source.reading)
