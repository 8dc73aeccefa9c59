"""Ellipses of components."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

Array = NDArray[np.float64]


def draw_ellipses(axes: Axes, center: Array, covariance: Array, colour: Array) -> None:
    """Draw the ellipses of 1 and 2 standard deviations.

    Parameters
    ----------
    axes
        Axes to draw on.
    center
        Center ``(2,)``.
    covariance
        Covariance ``(2, 2)``.
    colour
        Colour ``(3,)``, in 0 … 1; it is darkened, to be seen on rows of the same colour.
    """
    variances, directions = np.linalg.eigh(covariance)
    # The variances of eigh ascend, so the last direction is that of the long axis.
    angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
    for sigmas, width in ((1, 1.8), (2, 1.1)):
        # Rounding may leave a variance slightly below 0.
        short, long = 2 * sigmas * np.sqrt(np.clip(variances, 0.0, None))
        shape = Ellipse((center[0], center[1]), long, short, angle=angle)
        shape.set(fill=False, edgecolor=0.7 * np.asarray(colour), linewidth=width)
        axes.add_patch(shape)
