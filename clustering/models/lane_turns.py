"""Rows of a tile turned into columns, by moving the lanes of short vectors.

Lanes that are loaded one by one take several times as long.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from clustering.models.lanes import (
    DOUBLES,
    NARROW,
    PAIR_MOVES,
    SINGLES,
    WIDE,
    intrinsic,
    load_from,
    pointer_to,
    shuffle_of,
    splat_of,
)


@intrinsic
def transposed(typing_context, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """Eight vectors: the first lanes of eight vectors, their second lanes, and so on.

    Parameters
    ----------
    typing_context
        Given by numba.
    a, b, c, d, e, f, g, h
        Vectors of doubles.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vectors = list(arguments)
        # Each round mixes pairs of vectors. The low lanes go to the first half, so that the last round brings columns.
        for low, high in PAIR_MOVES:
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
            vectors = [shuffle_of(builder, x, y, lanes) for lanes in (low, high) for x, y in pairs]
        return context.make_tuple(builder, signature.return_type, vectors)

    eight = types.UniTuple(DOUBLES, WIDE)  # type: ignore[no-untyped-call]
    return eight(*[DOUBLES] * WIDE), code


def _quads(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """The same four lanes of each quarter of two vectors of sixteen; those of `b` follow the four of `a`."""
    # Lanes that stay in their quarter of a vector are moved by the cheapest instructions.
    return shuffle_of(
        builder, a, b, [q + i if i < 4 else NARROW + q + i - 4 for q in range(0, NARROW, 4) for i in lanes]
    )


def _columns_of(builder: Any, pairs: list[Any]) -> list[Any]:
    """Eight columns of sixteen rows of float32, from vectors of two rows each, as `_rows_in_pairs` makes them."""
    halves = []
    for a, b, c, d in (pairs[:4], pairs[4:]):
        low, high = [0, 4, 1, 5], [2, 6, 3, 7]
        mixed = [(_quads(builder, a, b, lanes), _quads(builder, c, d, lanes)) for lanes in (low, high)]
        halves.append([_quads(builder, *pair, lanes) for pair in mixed for lanes in ([0, 1, 4, 5], [2, 3, 6, 7])])
    return [
        shuffle_of(builder, x, y, [q + i for q in range(side, 2 * NARROW, WIDE) for i in range(4)])
        for side in (0, 4)
        for x, y in zip(*halves, strict=True)
    ]


def _rows_in_pairs(builder: Any, rows: list[Any]) -> list[Any]:
    """Vectors of rows 0 and 4, 1 and 5, 2 and 6, 3 and 7, and so on of the other eight, of sixteen rows of float32."""
    return [
        shuffle_of(builder, rows[first + i], rows[first + i + 4], list(range(NARROW)))
        for first in (0, WIDE)
        for i in range(4)
    ]


@intrinsic
def turned(typing_context, rows, at, step, factor):  # type: ignore[no-untyped-def]
    """Eight columns of sixteen rows, times a factor and rounded to float32: a vector for each column.

    Parameters
    ----------
    typing_context
        Given by numba.
    rows, at, step
        Doubles, index of the first of the eight in the first row, and distance between rows.
    factor
        Factor in float64.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, at, step, factor = arguments
        kind, factors, singles = context.get_value_type(DOUBLES), splat_of(builder, factor, WIDE), []
        for _ in range(NARROW):
            row = load_from(builder, pointer_to(context, builder, rows, (array, at), kind=kind), kind, rows.dtype)
            singles.append(builder.fptrunc(builder.fmul(row, factors), ir.VectorType(ir.FloatType(), WIDE)))
            at = builder.add(at, step)
        columns = _columns_of(builder, _rows_in_pairs(builder, singles))
        return context.make_tuple(builder, signature.return_type, columns)

    eight = types.UniTuple(SINGLES, WIDE)  # type: ignore[no-untyped-call]
    return eight(rows, types.intp, types.intp, types.float64), code


@intrinsic
def turned_singles(typing_context, rows, at, step, origin, first, factor):  # type: ignore[no-untyped-def]
    """Eight columns of sixteen rows of float32, less the origin and times a factor: a vector for each column.

    Parameters
    ----------
    typing_context
        Given by numba.
    rows, at, step
        Memory of float32, index of the first of the eight in the first row, and distance between rows.
    origin, first
        Origin in float32, and index of the first of the eight in it.
    factor
        Factor in float32.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, at, step, origins, first, factor = arguments
        kind, loaded = ir.VectorType(ir.FloatType(), WIDE), []
        for _ in range(NARROW):
            # Rows of others may begin anywhere in memory, so only the alignment of a byte is promised.
            pointer = pointer_to(context, builder, rows, (array, at), kind=kind)
            loaded.append(load_from(builder, pointer, kind, types.int8))
            at = builder.add(at, step)
        pointer = pointer_to(context, builder, origin, (origins, first), kind=kind)
        eight = load_from(builder, pointer, kind, origin.dtype)
        twice = shuffle_of(builder, eight, eight, list(range(NARROW)))
        factors = splat_of(builder, factor, NARROW)
        pairs = [builder.fmul(builder.fsub(pair, twice), factors) for pair in _rows_in_pairs(builder, loaded)]
        return context.make_tuple(builder, signature.return_type, _columns_of(builder, pairs))

    eight = types.UniTuple(SINGLES, WIDE)  # type: ignore[no-untyped-call]
    return eight(rows, types.intp, types.intp, origin, types.intp, types.float32), code


@intrinsic
def turned_four(typing_context, rows, at, step):  # type: ignore[no-untyped-def]
    """Four columns of sixteen rows of float32: a vector for each column.

    Parameters
    ----------
    typing_context
        Given by numba.
    rows, at, step
        Memory of float32, index of the first of the four in the first row, and distance between rows.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, at, step = arguments
        kind, loaded = ir.VectorType(ir.FloatType(), 4), []
        for _ in range(NARROW):
            # Rows of others may begin anywhere in memory, so only the alignment of a byte is promised.
            pointer = pointer_to(context, builder, rows, (array, at), kind=kind)
            loaded.append(load_from(builder, pointer, kind, types.int8))
            at = builder.add(at, step)
        # Rows 0, 4, 8 and 12 side by side, rows 1, 5, 9 and 13, and so on.
        eights = [shuffle_of(builder, loaded[i], loaded[i + 4], list(range(WIDE))) for i in (0, 1, 2, 3, 8, 9, 10, 11)]
        a, b, c, d = (shuffle_of(builder, eights[i], eights[i + 4], list(range(NARROW))) for i in range(4))
        low, high = [0, 4, 1, 5], [2, 6, 3, 7]
        mixed = [(_quads(builder, a, b, lanes), _quads(builder, c, d, lanes)) for lanes in (low, high)]
        columns = [_quads(builder, *pair, lanes) for pair in mixed for lanes in ([0, 1, 4, 5], [2, 3, 6, 7])]
        return context.make_tuple(builder, signature.return_type, columns)

    four = types.UniTuple(SINGLES, 4)  # type: ignore[no-untyped-call]
    return four(rows, types.intp, types.intp), code
