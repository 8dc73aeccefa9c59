"""Short vectors whose lanes are chosen by the labels of eight rows."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils

from clustering.models.lanes import DOUBLES, WIDE, intrinsic, load_from, pointer_to, splat_of


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
        among = builder.fcmp_ordered("==", labels, splat_of(builder, label, WIDE))
        return builder.select(among, builder.fadd(total, vector), total)

    return DOUBLES(DOUBLES, DOUBLES, DOUBLES, types.float64), code
