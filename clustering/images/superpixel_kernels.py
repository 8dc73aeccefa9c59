"""Loops over the pixels of a tile: colours, nearest centers, sums, and connected regions.

What a pixel gets depends on its own colour and place and on the centers alone, and all sums are of whole numbers. So no
result depends on how an image is cut into tiles.
"""

from __future__ import annotations

import numpy as np

from clustering.compiling import njit
from clustering.images.lab import MATRIX_BITS, ROOT_BITS, SCALE
from clustering.models.kernels import FAST

PLACE_BITS = 8
"""Places of centers are in steps of 2⁻⁸ pixels."""
COLOUR_BITS = 4
"""Colours of centers are in steps of 2⁻⁴ of the steps of pixels."""
COLUMNS = 6
"""Columns of the sums of a center: L, a, b, y, x and the number of pixels."""


@njit(**FAST)
def to_lab(pixels, light, matrix, roots, lab):  # type: ignore[no-untyped-def]
    """Convert colours to CIELAB in whole numbers.

    Parameters
    ----------
    pixels
        Pixels ``(y, x, channel)`` of 1 or 3 channels.
    light, matrix, roots
        Tables, see `clustering.images.lab.LabTables`.
    lab
        Filled with L, a and b ``(3, y, x)``, in steps of 1/128.
    """
    height, width, channels = pixels.shape
    half_matrix, half_root = 1 << (MATRIX_BITS - 1), 1 << (ROOT_BITS - 1)
    for y in range(height):
        for x in range(width):
            red = light[pixels[y, x, 0]]
            green = light[pixels[y, x, 1]] if channels == 3 else red
            blue = light[pixels[y, x, 2]] if channels == 3 else red
            fx = roots[(matrix[0, 0] * red + matrix[0, 1] * green + matrix[0, 2] * blue + half_matrix) >> MATRIX_BITS]
            fy = roots[(matrix[1, 0] * red + matrix[1, 1] * green + matrix[1, 2] * blue + half_matrix) >> MATRIX_BITS]
            fz = roots[(matrix[2, 0] * red + matrix[2, 1] * green + matrix[2, 2] * blue + half_matrix) >> MATRIX_BITS]
            lab[0, y, x] = ((116 * SCALE * fy + half_root) >> ROOT_BITS) - 16 * SCALE
            lab[1, y, x] = (500 * SCALE * (fx - fy) + half_root) >> ROOT_BITS
            lab[2, y, x] = (200 * SCALE * (fy - fz) + half_root) >> ROOT_BITS


@njit(**FAST)
def home_labels(top, left, down, across, height, width, labels):  # type: ignore[no-untyped-def]
    """Label each pixel with the rectangle of the lattice that it lies in.

    Parameters
    ----------
    top, left
        Place of the first pixel of the tile in the image.
    down, across
        Number of rectangles along y and x.
    height, width
        Size of the image.
    labels
        Filled with the number of the rectangle ``(y, x)``.
    """
    for y in range(labels.shape[0]):
        first = (top + y) * down // height * across
        for x in range(labels.shape[1]):
            labels[y, x] = first + (left + x) * across // width


@njit(inline="always", **FAST)
def _window(place, reach, first, length):  # type: ignore[no-untyped-def]
    """Return the first pixel of a tile that lies in a window, and the first one behind it, along one side."""
    begin = ((place - reach - 1) >> PLACE_BITS) + 1 - first
    end = ((place + reach) >> PLACE_BITS) + 1 - first
    return max(begin, 0), min(end, length)


@njit(**FAST)
def assign_nearest(lab, top, left, ids, colours, places, reach, weight, distances, labels):  # type: ignore[no-untyped-def]
    """Label pixels with the nearest of the centers whose windows they lie in; the lowest number among equals.

    Parameters
    ----------
    lab
        Colours ``(3, y, x)``.
    top, left
        Place of the first pixel of the tile in the image.
    ids
        Numbers of the centers whose windows may reach into the tile, ascending ``(c,)``.
    colours, places
        Colours ``(c, 3)`` and places ``(c, 2)`` of these centers, in their steps.
    reach
        Half the side of a window, in steps of places.
    weight
        Weight of a squared step of places.
    distances
        Filled with the squared distances ``(y, x)``; infinite where a pixel lies in no window.
    labels
        Where a pixel lies in a window, filled with its center ``(y, x)``.
    """
    height, width = labels.shape
    step = np.float32(1.0 / (1 << COLOUR_BITS))
    along = np.empty(width, np.float32)
    # With two loops for a row, each has so few arrays that the compiler makes vectors of it.
    row = np.empty(width, np.float32)
    for y in range(height):
        for x in range(width):
            distances[y, x] = np.float32(np.inf)
    for i in range(len(ids)):
        label = ids[i]
        lightness = np.float32(colours[i, 0]) * step
        a, b = np.float32(colours[i, 1]) * step, np.float32(colours[i, 2]) * step
        above, below = _window(places[i, 0], reach, top, height)
        before, behind = _window(places[i, 1], reach, left, width)
        for x in range(before, behind):
            dx = np.float32(((left + x) << PLACE_BITS) - places[i, 1])
            along[x] = dx * dx * weight
        for y in range(above, below):
            dy = np.float32(((top + y) << PLACE_BITS) - places[i, 0])
            across = dy * dy * weight
            for x in range(before, behind):
                dl = np.float32(lab[0, y, x]) - lightness
                da = np.float32(lab[1, y, x]) - a
                db = np.float32(lab[2, y, x]) - b
                row[x] = dl * dl + da * da + db * db + (across + along[x])
            for x in range(before, behind):
                # Both are written in any case, so that a vector of pixels needs no branch.
                is_less = row[x] < distances[y, x]
                labels[y, x] = label if is_less else labels[y, x]
                distances[y, x] = row[x] if is_less else distances[y, x]


@njit(**FAST)
def add_up_pixels(lab, top, left, labels, first, sums):  # type: ignore[no-untyped-def]
    """Add up colours and places of the pixels of each center.

    Parameters
    ----------
    lab
        Colours ``(3, y, x)``.
    top, left
        Place of the first pixel of the tile in the image.
    labels
        Center of each pixel ``(y, x)``.
    first
        Lowest label.
    sums
        Sums to add to, from the lowest label on ``(c, 6)``: L, a, b, y, x, number of pixels.
    """
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            row = labels[y, x] - first
            sums[row, 0] += lab[0, y, x]
            sums[row, 1] += lab[1, y, x]
            sums[row, 2] += lab[2, y, x]
            sums[row, 3] += top + y
            sums[row, 4] += left + x
            sums[row, 5] += 1


@njit(**FAST)
def _root(parents, i):  # type: ignore[no-untyped-def]
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@njit(**FAST)
def connected_regions(labels, regions):  # type: ignore[no-untyped-def]
    """Find and number the connected regions of equal labels, in the order of their first pixels.

    Parameters
    ----------
    labels
        Label of each pixel ``(y, x)``.
    regions
        Filled with the region of each pixel ``(y, x)``. Pixels touch along their sides.

    Returns
    -------
    int
        Number of regions.
    """
    height, width = labels.shape
    parents = np.empty(height * width, np.int32)
    n = 0
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            at_left = x > 0 and labels[y, x - 1] == label
            if y > 0 and labels[y - 1, x] == label:
                up = _root(parents, regions[y - 1, x])
                regions[y, x] = up
                if at_left:
                    other = _root(parents, regions[y, x - 1])
                    # The root is the lowest number, which the first pixel of the region has.
                    low = min(up, other)
                    parents[max(up, other)] = low
                    regions[y, x] = low
            elif at_left:
                regions[y, x] = regions[y, x - 1]
            else:
                parents[n] = n
                regions[y, x] = n
                n += 1
    count = 0
    numbers = np.empty(n, np.int32)
    for i in range(n):
        root = _root(parents, i)
        if root == i:
            numbers[i] = count
            count += 1
        else:
            numbers[i] = numbers[root]
    for y in range(height):
        for x in range(width):
            regions[y, x] = numbers[regions[y, x]]
    return count


@njit(**FAST)
def measure_regions(lab, regions, sums, firsts):  # type: ignore[no-untyped-def]
    """Add up the colours of each region, and find its first pixel.

    Parameters
    ----------
    lab
        Colours ``(3, y, x)``.
    regions
        Region of each pixel ``(y, x)``.
    sums
        Sums to add to ``(r, 4)``: L, a, b, number of pixels.
    firsts
        Filled with the first pixels in the order of reading ``(r,)``.

    Returns
    -------
    int
        Σ L² + a² + b² over all pixels.
    """
    height, width = regions.shape
    squares = np.int64(0)
    for y in range(height):
        for x in range(width):
            region = regions[y, x]
            if sums[region, 3] == 0:
                firsts[region] = y * width + x
            sums[region, 3] += 1
            for i in range(3):
                # In the type of the pixels, a square would overflow.
                value = np.int64(lab[i, y, x])
                sums[region, i] += value
                squares += value * value
    return squares
