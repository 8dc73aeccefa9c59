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
        vectors, size = list(arguments), WIDE // 2
        # Squares of lanes change places across the diagonal: those of four by four, then two by two, then single ones.
        while size:
            low = [i if i & size == 0 else WIDE + i - size for i in range(WIDE)]
            high = [i + size if i & size == 0 else WIDE + i for i in range(WIDE)]
            moved = list(vectors)
            for i in range(WIDE):
                if i & size == 0:
                    pair = vectors[i], vectors[i + size]
                    moved[i], moved[i + size] = (shuffle_of(builder, *pair, lanes) for lanes in (low, high))
            vectors, size = moved, size // 2
        return context.make_tuple(builder, signature.return_type, vectors)

    eight = types.UniTuple(DOUBLES, WIDE)  # type: ignore[no-untyped-call]
    return eight(*[DOUBLES] * WIDE), code


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

        def quads(a: Any, b: Any, lanes: list[int]) -> Any:
            # Lanes that stay in their quarter of a vector are moved by the cheapest instructions.
            chosen = [q + i if i < 4 else NARROW + q + i - 4 for q in range(0, NARROW, 4) for i in lanes]
            return shuffle_of(builder, a, b, chosen)

        halves = []
        for first in (0, WIDE):
            a, b, c, d = (
                shuffle_of(builder, singles[first + i], singles[first + i + 4], list(range(NARROW))) for i in range(4)
            )
            low, high = [0, 4, 1, 5], [2, 6, 3, 7]
            pairs = [(quads(a, b, lanes), quads(c, d, lanes)) for lanes in (low, high)]
            halves.append([quads(*pair, lanes) for pair in pairs for lanes in ([0, 1, 4, 5], [2, 3, 6, 7])])
        columns = [
            shuffle_of(builder, x, y, [q + i for q in range(side, 2 * NARROW, WIDE) for i in range(4)])
            for side in (0, 4)
            for x, y in zip(*halves, strict=True)
        ]
        return context.make_tuple(builder, signature.return_type, columns)

    eight = types.UniTuple(SINGLES, WIDE)  # type: ignore[no-untyped-call]
    return eight(rows, types.intp, types.intp, types.float64), code
