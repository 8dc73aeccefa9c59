"""Codebooks of pictures by k-means: one sweep for all sizes, so that every pass over the patches serves all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.access import open_data
from clustering.data.preparation import usable_memory
from clustering.errors import ConfigError, DataError
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner
from clustering.fitting.fitted_model import LIMITS, early_stop_note
from clustering.fitting.sweep import failures, of_choice
from clustering.images.patches import Bytes, bands, patch_rows
from clustering.images.picture import Picture
from clustering.models.kmeans import KMeans
from clustering.models.objective import rank_candidates
from clustering.option_values import in_bytes
from clustering.options import SelectCall, cluster_of, wanted_block
from clustering.run import sweep as sweeps
from clustering.run.watch import Watch


def fit_codebooks(pictures: Sequence[Picture], side: int, options: SelectCall, watch: Watch) -> dict[int, Bytes]:
    """Fit a codebook of each size to the patches of pictures.

    Parameters
    ----------
    pictures
        Pictures of 8 bits, with as many channels each.
    side
        Side of a patch, in pixels.
    options
        Sizes of the codebooks, and how to fit them.
    watch
        Receives messages and the record of every pass.

    Returns
    -------
    dict
        Size k → code vectors ``(k, side · side · channels)``, rounded to 8 bits.

    Raises
    ------
    ConfigError
        If a codebook is larger than the number of distinct patches.
    """
    sweep = sweeps.plan_sweep(KMeans(k=1), options, options, options, in_bytes(options.memory))
    source = open_data(_rows(pictures, side, sweep.memory), options)
    plan = source.plan(
        block_bytes=wanted_block(options, options.block_bytes), memory=usable_memory(source, sweep.memory, False)
    )
    with (
        connect(cluster_of(options), options.workers, sweep.memory, options.wait_seconds) as engine,
        pass_runner(source, plan, engine, memory=sweep.memory, scratch=options.scratch) as runner,
        watch.working(engine),
    ):
        try:
            surveyed = sweeps.survey(runner, sweep, watch)
        except DataError as error:
            # Pixels are all there and small, so only too few distinct ones are refused here.
            raise ConfigError(f"{_called(pictures)}: {error}") from error
        _check_sizes(pictures, side, [choice.k for choice in sweep.choices], len(surveyed.survey.distinct.digests))
        started = sweeps.start(surveyed, sweep, "", watch)
        ended = sweeps.run_passes(surveyed.runner, sweep, started, watch)
    failed = failures(sweep.choices, ended.state, ended.failed)
    if failed:
        name, why = next(iter(failed.items()))
        raise ConfigError(f"the codebook of {name} cannot be made: {why}")
    best = {choice.k: rank_candidates(of_choice(choice, ended.state))[0] for choice in sweep.choices}
    for k, candidate in best.items():
        if candidate.stop in LIMITS:
            watch.warn(f"k = {k}: {early_stop_note(candidate.stop, len(candidate.history))}; raise max_iterations")
    return {k: _rounded(one.params.origin + one.params.centers) for k, one in best.items()}


def _check_sizes(pictures: Sequence[Picture], side: int, sizes: Sequence[int], distinct: int) -> None:
    """Refuse a codebook with more vectors than the pictures have distinct patches."""
    if max(sizes) <= distinct:
        return
    what = "colours" if side == 1 else f"patches of {side} × {side} pixels"
    raise ConfigError(f"{_called(pictures)}: k is {max(sizes)} and there are {distinct:,} distinct {what}; lower k")


def _called(pictures: Sequence[Picture]) -> str:
    return f"image {pictures[0].name!r}" if len(pictures) == 1 else f"the {len(pictures)} images together"


def _rows(pictures: Sequence[Picture], side: int, memory: int) -> Any:
    """Give the patches of all pictures as rows ``(n, d)``: in memory where the pictures are, otherwise band by band."""
    if all(picture.in_memory for picture in pictures) and sum(one.nbytes for one in pictures) <= memory // 4:
        return np.concatenate([patch_rows(picture.pixels(), side) for picture in pictures])
    import dask.array
    from dask.delayed import delayed

    # Dask's functions have no types.
    arrays: Any = dask.array
    d = side * side * pictures[0].shape[2]
    parts = []
    for picture in pictures:
        for band in bands(picture, side):
            n = -(-(band.stop - band.start) // side) * -(-picture.shape[1] // side)
            part = delayed(_band_rows)(picture, band, side)
            parts.append(arrays.from_delayed(part, (n, d), np.uint8))
    return arrays.concatenate(parts)


def _band_rows(picture: Picture, band: slice, side: int) -> Bytes:
    return patch_rows(picture.read(band, slice(None)), side)


def _rounded(centers: NDArray[np.float64]) -> Bytes:
    """Round code vectors to the numbers that a picture of 8 bits can hold."""
    return np.clip(np.rint(centers), 0, 255).astype(np.uint8)
