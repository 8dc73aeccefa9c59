"""Roots, exponentials and logarithms of short vectors, from operations that are the same on every processor.

Functions of a mathematical library would leave the vector units idle, and their last bits differ between libraries.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from clustering.models.lanes import WIDE, constant, fused_of, intrinsic

LEAST_LOG = -708.0
"""The exponential of a number below this is taken to be 0, because denormal numbers would slow down later loops."""
# A number below 2⁵¹ plus this one is rounded to a whole number, which is in the low bits of the sum.
_MAGIC = 1.5 * 2.0**52
_LOG2E = 1.4426950408889634
# The high part has so many zeros at its end that its product with a whole number is exact (Cody & Waite 1980).
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10


def _number(value: float) -> Any:
    return constant(ir.DoubleType(), [value] * WIDE)


def _integer(value: int) -> Any:
    return constant(ir.IntType(64), [value] * WIDE)


def _polynomial(builder: Any, x: Any, coefficients: list[float]) -> Any:
    """Polynomial of a vector of doubles by Horner's rule, the highest power first."""
    numbers = [_number(c) for c in coefficients]
    total = numbers[0]
    for number in numbers[1:]:
        total = fused_of(builder, total, x, number)
    return total


@intrinsic
def exponential(typing_context, vector):  # type: ignore[no-untyped-def]
    """Exponential of the lanes, accurate to the last bit but one; 0 below `LEAST_LOG`.

    Parameters
    ----------
    typing_context
        Given by numba.
    vector
        Vector of doubles of at most 0, or NaN.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, whole_type = arguments[0], ir.VectorType(ir.IntType(64), WIDE)
        # An ordered comparison is false where a lane is NaN, which then stays NaN.
        low = builder.fcmp_ordered("<", x, _number(LEAST_LOG))
        bounded = builder.select(low, _number(LEAST_LOG), x)
        magic = fused_of(builder, bounded, _number(_LOG2E), _number(_MAGIC))
        n = builder.fsub(magic, _number(_MAGIC))
        # x = n log 2 + t, with |t| ≤ ½ log 2.
        t = fused_of(builder, n, _number(-_LN2_HIGH), bounded)
        t = fused_of(builder, n, _number(-_LN2_LOW), t)
        power = _polynomial(builder, t, [1.0 / math.factorial(i) for i in range(13, -1, -1)])
        # The low bits of n + 1.5·2⁵² hold n, which becomes the exponent.
        bits = builder.shl(builder.add(builder.bitcast(magic, whole_type), _integer(1023)), _integer(52))
        result = builder.fmul(power, builder.bitcast(bits, x.type))
        return builder.select(low, _number(0.0), result)

    return vector(vector), code


@intrinsic
def logarithm(typing_context, vector):  # type: ignore[no-untyped-def]
    """Natural logarithm of the lanes, accurate to the last bits; NaN where a lane is NaN.

    Parameters
    ----------
    typing_context
        Given by numba.
    vector
        Vector of finite doubles of at least 1, or NaN.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, whole_type = arguments[0], ir.VectorType(ir.IntType(64), WIDE)
        bits = builder.bitcast(x, whole_type)
        mantissa = builder.or_(builder.and_(bits, _integer(2**52 - 1)), _integer(1023 << 52))
        mantissa = builder.bitcast(mantissa, x.type)
        exponent = builder.sub(builder.lshr(bits, _integer(52)), _integer(1023))
        # x = 2ᵉ m with ½√2 ≤ m ≤ √2, where the series converges fast.
        high = builder.fcmp_ordered(">", mantissa, _number(math.sqrt(2.0)))
        mantissa = builder.select(high, builder.fmul(mantissa, _number(0.5)), mantissa)
        exponent = builder.select(high, builder.add(exponent, _integer(1)), exponent)
        e = builder.sitofp(exponent, x.type)
        # log m = 2 artanh f = 2 f (1 + f²/3 + f⁴/5 + …), with f = (m − 1) / (m + 1).
        f = builder.fdiv(builder.fsub(mantissa, _number(1.0)), builder.fadd(mantissa, _number(1.0)))
        series = _polynomial(builder, builder.fmul(f, f), [2.0 / i for i in range(23, 0, -2)])
        result = fused_of(builder, e, _number(_LN2_LOW), builder.fmul(f, series))
        result = fused_of(builder, e, _number(_LN2_HIGH), result)
        # The bits of NaN would pass for a number.
        return builder.fadd(result, builder.fsub(x, x))

    return vector(vector), code


@intrinsic
def root(typing_context, vector):  # type: ignore[no-untyped-def]
    """Square roots of the lanes.

    Parameters
    ----------
    typing_context
        Given by numba.
    vector
        Vector of numbers that are zero or more.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = arguments[0].type
        name = f"llvm.sqrt.v{vector.count}f{vector.dtype.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)  # type: ignore[no-untyped-call]
        return builder.call(function, arguments)

    return vector(vector), code
