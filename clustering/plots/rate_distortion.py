"""The plot of a vector quantisation: how much of a picture is kept, over the bits that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from clustering.errors import ConfigError
from clustering.plots.canvas import Place, axes_for, finish, tidy

_RATES = {
    "bits_per_pixel": ("fixed rate, log₂ k bits for each patch", "o-", "#2563eb"),
    "entropy_per_pixel": ("entropy of the labels", "s--", "#dc2626"),
}


def rate_distortion(table: Sequence[Mapping[str, Any]], ax: Place = None) -> Axes:
    """Draw PSNR over the fixed rate and over the entropy, with k at each point.

    Parameters
    ----------
    table
        One mapping for each k, with ``k``, ``psnr`` in dB, ``bits_per_pixel`` and ``entropy_per_pixel``. Rows without
        loss have None as ``psnr``, and are left out.
    ax
        See `clustering.plots.canvas.Place`.

    Returns
    -------
    Axes
        The axes, with a line for each rate.

    Raises
    ------
    ConfigError
        If no row has a loss.
    """
    rows = [row for row in table if row["psnr"] is not None and np.isfinite(row["psnr"])]
    if not rows:
        raise ConfigError("every palette keeps the whole picture, so there is no curve; choose a smaller k")
    axes = axes_for(ax, (6.4, 4.0))
    psnr = [row["psnr"] for row in rows]
    for rate, (label, style, colour) in _RATES.items():
        axes.plot([row[rate] for row in rows], psnr, style, color=colour, markersize=4, linewidth=1.3, label=label)
    for row in rows:
        axes.annotate(
            f"k = {row['k']}", (row["bits_per_pixel"], row["psnr"]), (6, -3), textcoords="offset points",
            fontsize="small", va="top",
        )  # fmt: skip
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel("PSNR, dB")
    axes.legend(frameon=False, loc="upper left")
    tidy(axes)
    finish(axes)
    return axes
