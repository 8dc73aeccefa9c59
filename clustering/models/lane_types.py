"""Vectors of doubles from elements of any type, which is known only when the compiled code runs.

Only these loads depend on the type of the rows, so that kernels are compiled once for all types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from clustering.models.lanes import DOUBLES, WIDE, constant, intrinsic, load_from, pointer_to, splat_of

ELEMENT_TYPES: tuple[Any, ...] = (
    types.float32, types.float64, types.uint8, types.int8, types.uint16, types.int16, types.uint32, types.int32,
    types.uint64, types.int64,
)  # fmt: skip
"""Types of elements that `wide` loads."""
ELEMENT_CODES = {np.dtype(str(dtype)): code for code, dtype in enumerate(ELEMENT_TYPES)}
"""Number of each element type."""
FLOAT32, FLOAT64 = (ELEMENT_CODES[np.dtype(name)] for name in ("float32", "float64"))
"""Numbers of the types that most rows have."""
ELEMENT_BYTES = np.array([dtype.bitwidth // 8 for dtype in ELEMENT_TYPES])
"""Size of an element of each type, in bytes."""


def _for_element_type(builder: Any, code: Any, make: Callable[[Any], Any]) -> Any:
    """Vector of doubles that `make` makes for the element type of that code, which is known only when it runs."""
    kind = ir.VectorType(ir.DoubleType(), WIDE)
    end = builder.append_basic_block("end")
    made = []
    # The first type is the default, so that no code is left without a vector.
    blocks = [builder.append_basic_block(str(dtype)) for dtype in ELEMENT_TYPES]
    choice = builder.switch(code, blocks[0])
    for number, (dtype, block) in enumerate(zip(ELEMENT_TYPES, blocks, strict=True)):
        choice.add_case(ir.Constant(ir.IntType(64), number), block)
        builder.position_at_end(block)
        made.append((make(dtype), builder.block))
        builder.branch(end)
    builder.position_at_end(end)
    lanes = builder.phi(kind)
    for vector, block in made:
        lanes.add_incoming(vector, block)
    return lanes


@intrinsic
def wide(typing_context, address, code, at):  # type: ignore[no-untyped-def]
    """Vector of doubles of eight elements of any type.

    Parameters
    ----------
    typing_context
        Given by numba.
    address, code, at
        Address of the first element, number of the type in `ELEMENT_TYPES`, and index of the first element to load.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        address, code, at = arguments

        def make(dtype: Any) -> Any:
            element = context.get_data_type(dtype)
            kind = ir.VectorType(element, WIDE)
            pointer = builder.gep(builder.inttoptr(address, element.as_pointer()), [at])
            pointer = builder.bitcast(pointer, kind.as_pointer())
            # Rows of others may begin anywhere in memory, so only the alignment of a byte is promised.
            return _to_doubles(builder, load_from(builder, pointer, kind, types.int8), dtype)

        return _for_element_type(builder, code, make)

    return DOUBLES(types.int64, types.int64, types.intp), generate


@intrinsic
def doubles(typing_context, array, at):  # type: ignore[no-untyped-def]
    """Vector of doubles of eight elements of a type that is known when the code is compiled.

    Parameters
    ----------
    typing_context
        Given by numba.
    array, at
        Array or memory, and index of the first element to load.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.VectorType(context.get_data_type(array.dtype), WIDE)
        pointer = pointer_to(context, builder, array, arguments, kind=kind)
        return _to_doubles(builder, load_from(builder, pointer, kind, types.int8), array.dtype)

    return DOUBLES(array, types.intp), code


@intrinsic
def widened(typing_context, address, code, at, count):  # type: ignore[no-untyped-def]
    """Vector of doubles of a few elements of any type, with zeros in the other lanes.

    Parameters
    ----------
    typing_context
        Given by numba.
    address, code, at
        As in `wide`.
    count
        Number of elements, at most 8.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        address, code, at, count = arguments
        limit = splat_of(builder, builder.trunc(count, ir.IntType(32)), WIDE)
        # A masked load touches no memory behind the last element, which may not belong to the process.
        mask = builder.icmp_signed("<", constant(ir.IntType(32), list(range(WIDE))), limit)

        def make(dtype: Any) -> Any:
            element = context.get_data_type(dtype)
            kind = ir.VectorType(element, WIDE)
            pointer = builder.gep(builder.inttoptr(address, element.as_pointer()), [at])
            pointer = builder.bitcast(pointer, kind.as_pointer())
            name = f"llvm.masked.load.v{WIDE}{'i' if isinstance(element, ir.IntType) else 'f'}{dtype.bitwidth}.p0"
            function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
                builder.module, ir.FunctionType(kind, [pointer.type, ir.IntType(32), mask.type, kind]), name
            )
            align = ir.Constant(ir.IntType(32), 1)
            return _to_doubles(builder, builder.call(function, [pointer, align, mask, ir.Constant(kind, None)]), dtype)

        return _for_element_type(builder, code, make)

    return DOUBLES(types.int64, types.int64, types.intp, types.intp), generate


def _to_doubles(builder: Any, lanes: Any, dtype: Any) -> Any:
    kind = ir.VectorType(ir.DoubleType(), WIDE)
    if isinstance(lanes.type.element, ir.IntType):
        return builder.sitofp(lanes, kind) if dtype.signed else builder.uitofp(lanes, kind)
    return lanes if dtype == types.float64 else builder.fpext(lanes, kind)
