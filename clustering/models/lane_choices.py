"""Short vectors whose lanes are chosen by the labels of eight rows."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from clustering.models.lanes import DOUBLES, WIDE, fused_of, intrinsic, load_from, pointer_to, splat_of


@intrinsic
def chosen(typing_context, array, at, labels):  # type: ignore[no-untyped-def]
    """Vector of those of eight numbers that the labels name. Only processors with AVX-512 have the instruction.

    Parameters
    ----------
    typing_context
        Given by numba.
    array, at
        Array of doubles, and index of the first of the eight.
    labels
        Vector of doubles that are whole numbers from 0 to 7.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        values, at, labels = arguments
        kind, whole = labels.type, ir.VectorType(ir.IntType(64), WIDE)
        numbers = load_from(builder, pointer_to(context, builder, array, (values, at), kind=kind), kind, types.float64)
        permute = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(kind, [kind, whole]), "llvm.x86.avx512.permvar.df.512"
        )
        return builder.call(permute, [numbers, builder.fptosi(labels, whole)])

    return DOUBLES(array, types.intp, DOUBLES), code


@intrinsic
def add_where(typing_context, total, vector, labels, label):  # type: ignore[no-untyped-def]
    """Total, with a vector added in the lanes that have a label; the others keep every bit.

    Parameters
    ----------
    typing_context
        Given by numba.
    total, vector, labels
        Vectors of doubles.
    label
        The label, in float64.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        total, vector, labels, label = arguments
        return builder.select(_equal(builder, labels, label), builder.fadd(total, vector), total)

    return DOUBLES(DOUBLES, DOUBLES, DOUBLES, types.float64), code


@intrinsic
def multiply_add_where(typing_context, factor, vector, total, labels, label):  # type: ignore[no-untyped-def]
    """Do as `add_where` does for the product of a vector with a factor, rounded as `lanes.multiply_add` does.

    Parameters
    ----------
    typing_context
        Given by numba.
    factor, vector, total, labels
        Vectors of doubles.
    label
        The label, in float64.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        factor, vector, total, labels, label = arguments
        return builder.select(_equal(builder, labels, label), fused_of(builder, factor, vector, total), total)

    return DOUBLES(DOUBLES, DOUBLES, DOUBLES, DOUBLES, types.float64), code


def _equal(builder: Any, labels: Any, label: Any) -> Any:
    return builder.fcmp_ordered("==", labels, splat_of(builder, label, WIDE))
