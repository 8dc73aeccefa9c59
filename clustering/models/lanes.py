"""Short vectors for compiled loops: eight float64 or sixteen float32 side by side.

The machine code of a plain loop depends on the loop's length and on which arrays may overlap in memory. Operations on
these vectors are the same on every processor, and each lane is rounded like a single number. Arrays are treated as flat
memory: `at` counts elements from the first one. `memory` lets an address stand for an array, as one call of
compiled code may work on many arrays.

Compiled code calls these functions without `typing_context`, which numba adds.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import lower_builtin, models, register_model, type_callable

intrinsic: Any = extending.intrinsic

WIDE, NARROW = 8, 16
"""Lanes of a vector of float64, and of float32."""
MANY_REGISTERS = bool(binding.get_host_cpu_features().get("avx512f"))
"""Whether the processor has 32 registers of 512 bits, which hold twice as many sums as 16 of 256 bits do."""
FUSES = bool(binding.get_host_cpu_features().get("fma")) or not binding.get_default_triple().startswith(("x86", "i686"))
"""Whether the processor rounds a product and a sum together."""


class Lanes(types.Type):
    """The type of a vector."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype} x {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        element = ir.DoubleType() if fe_type.dtype == types.float64 else ir.FloatType()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.count))  # type: ignore[no-untyped-call]


DOUBLES, SINGLES = Lanes(types.float64, WIDE), Lanes(types.float32, NARROW)


def _vector_of(dtype: Any) -> Any:
    return DOUBLES if dtype == types.float64 else SINGLES


def pointer_to(context: Any, builder: Any, array_type: Any, array_and_at: Any, kind: Any = None) -> Any:
    """Pointer to element `at` of an array's memory.

    Parameters
    ----------
    context, builder
        Given by numba.
    array_type, array_and_at
        Type of the array or address, and its value with the index.
    kind
        Type of the vector that begins there; None for one element.
    """
    array, at = array_and_at
    start = (
        array
        if isinstance(array_type, types.CPointer)
        else context.make_array(array_type)(context, builder, array).data
    )
    pointer = builder.gep(start, [at])
    return pointer if kind is None else builder.bitcast(pointer, kind.as_pointer())


def load_from(builder: Any, pointer: Any, kind: Any, dtype: Any) -> Any:
    """Load a vector.

    Parameters
    ----------
    builder
        Given by numba.
    pointer, kind
        Start of the vector, and its type.
    dtype
        Type whose alignment the start has.
    """
    # Whether a pointer has an element type depends on the version of llvmlite; without one, the type must be given.
    options = {} if hasattr(pointer.type, "pointee") and not pointer.type.is_opaque else {"typ": kind}
    # Vectors may begin at any element, so only the alignment of one element is promised.
    return builder.load(pointer, align=dtype.bitwidth // 8, **options)


def constant(kind: Any, numbers: list[Any]) -> Any:
    """Vector of fixed numbers.

    Parameters
    ----------
    kind, numbers
        Type of an element, and the numbers.
    """
    return ir.Constant(ir.VectorType(kind, len(numbers)), [ir.Constant(kind, x) for x in numbers])


def shuffle_of(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Vector of chosen lanes of two vectors.

    Parameters
    ----------
    builder
        Given by numba.
    a, b, lanes
        The vectors, and numbers of lanes; those of `b` follow those of `a`.
    """
    return builder.shuffle_vector(a, b, constant(ir.IntType(32), lanes))


def splat_of(builder: Any, number: Any, count: int) -> Any:
    """Vector of one number in all lanes.

    Parameters
    ----------
    builder
        Given by numba.
    number, count
        The number, and the number of lanes.
    """
    kind = ir.VectorType(number.type, count)
    # LLVM knows this pair of instructions as a broadcast.
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return shuffle_of(builder, one, ir.Constant(kind, ir.Undefined), [0] * count)


@intrinsic
def load(typing_context, array, at):  # type: ignore[no-untyped-def]
    """Vector of the elements from `at` on.

    Parameters
    ----------
    typing_context
        Given by numba.
    array, at
        Array, and index of the first element.
    """
    vector = _vector_of(array.dtype)

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = pointer_to(context, builder, array, arguments, kind=context.get_value_type(vector))
        return load_from(builder, pointer, context.get_value_type(vector), array.dtype)

    return vector(array, types.intp), code


@intrinsic
def store(typing_context, array, at, vector):  # type: ignore[no-untyped-def]
    """Write a vector to the elements from `at` on; they are rounded or widened to its type, or cut to whole numbers.

    Parameters
    ----------
    typing_context
        Given by numba.
    array, at
        Array, and index of the first element.
    vector
        Vector to write.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes = arguments[2]
        if vector.dtype != array.dtype:
            kind = ir.VectorType(context.get_data_type(array.dtype), vector.count)
            convert = {types.float32: builder.fptrunc, types.float64: builder.fpext}.get(array.dtype, builder.fptosi)
            lanes = convert(lanes, kind)
        pointer = pointer_to(context, builder, array, arguments[:2], kind=lanes.type)
        builder.store(lanes, pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), code


@intrinsic
def splat(typing_context, number):  # type: ignore[no-untyped-def]
    """Vector of one number in all lanes.

    Parameters
    ----------
    typing_context
        Given by numba.
    number
        Number in float64 or float32.
    """
    vector = _vector_of(number)

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return splat_of(builder, arguments[0], vector.count)

    return vector(number), code


@intrinsic
def repeated(typing_context, array, at):  # type: ignore[no-untyped-def]
    """Vector of one element of an array in all lanes.

    Parameters
    ----------
    typing_context
        Given by numba.
    array, at
        Array, and index of the element.
    """
    vector = _vector_of(array.dtype)

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        number = builder.load(pointer_to(context, builder, array, arguments))
        return splat_of(builder, number, vector.count)

    return vector(array, types.intp), code


@intrinsic
def element(typing_context, array, at):  # type: ignore[no-untyped-def]
    """One element of an array.

    Parameters
    ----------
    typing_context
        Given by numba.
    array, at
        Array, and index of the element.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load(pointer_to(context, builder, array, arguments))

    return array.dtype(array, types.intp), code


@intrinsic
def memory(typing_context, address, number):  # type: ignore[no-untyped-def]
    """Elements at an address, which the other functions take like an array.

    Parameters
    ----------
    typing_context
        Given by numba.
    address, number
        Address of the first element, and the type of the elements, such as `numpy.float64`.
    """
    pointer = types.CPointer(number.instance_type)  # type: ignore[no-untyped-call]

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, number), code


@intrinsic
def beginning(typing_context, array, at):  # type: ignore[no-untyped-def]
    """Elements of an array from one on, as memory: its address alone takes fewer registers than an array.

    Parameters
    ----------
    typing_context
        Given by numba.
    array, at
        Array or memory, and index of the element.
    """
    pointer = types.CPointer(array.dtype)  # type: ignore[no-untyped-call]

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return pointer_to(context, builder, array, arguments)

    return pointer(array, types.intp), code


def _give_operator(symbol: Any, instruction: str) -> None:
    """Let vectors be operands of an operator. It is an instruction, and no function that numba would compile."""

    @type_callable(symbol)
    def type_of(context: Any) -> Any:
        return lambda a, b: a if isinstance(a, Lanes) and a == b else None

    @lower_builtin(symbol, Lanes, Lanes)  # type: ignore[no-untyped-call]
    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        # Without flags for fast arithmetic, LLVM neither reorders nor merges these operations.
        return getattr(builder, instruction)(*arguments)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _give_operator(_symbol, _instruction)


def fused_of(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x·y + z. The compiler may not choose how it is rounded: it would choose by what stands around it.

    Parameters
    ----------
    builder
        Given by numba.
    x, y, z
        Vectors of one type.
    """
    if not FUSES:
        return builder.fadd(builder.fmul(x, y), z)
    kind, bits = x.type, 64 if isinstance(x.type.element, ir.DoubleType) else 32
    shape = ir.FunctionType(kind, [kind] * 3)
    fused = cgutils.get_or_insert_function(builder.module, shape, f"llvm.fma.v{kind.count}f{bits}")  # type: ignore[no-untyped-call]
    return builder.call(fused, [x, y, z])


@intrinsic
def multiply_add(typing_context, a, b, c):  # type: ignore[no-untyped-def]
    """a·b + c, rounded once where the processor can do so, and otherwise twice.

    Parameters
    ----------
    typing_context
        Given by numba.
    a, b, c
        Vectors of one type.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        # No label of k-means depends on it: scores have a bound that covers one rounding as well as two. The last bits
        # of soft models do, and depend on the processor.
        return fused_of(builder, *arguments)

    return a(a, b, c), code


@intrinsic
def where_less(typing_context, a, b, yes, no):  # type: ignore[no-untyped-def]
    """`yes` in the lanes where a < b, `no` elsewhere.

    Parameters
    ----------
    typing_context
        Given by numba.
    a, b, yes, no
        Vectors of one number of lanes.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, y, yes, no = arguments
        # An ordered comparison is false where a lane is NaN.
        return builder.select(builder.fcmp_ordered("<", x, y), yes, no)

    return yes(a, b, yes, no), code


@intrinsic
def folded(typing_context, vector):  # type: ignore[no-untyped-def]
    """Sum of the lanes: of neighbours first, then of neighbouring sums.

    Parameters
    ----------
    typing_context
        Given by numba.
    vector
        Vector to add up.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        # `kernels.distance_between` adds its sums in this order, and the bits must agree.
        lanes, count = arguments[0], vector.count
        while count > 1:
            even = shuffle_of(builder, lanes, lanes, list(range(0, count, 2)))
            odd = shuffle_of(builder, lanes, lanes, list(range(1, count, 2)))
            lanes, count = builder.fadd(even, odd), count // 2
        return builder.extract_element(lanes, ir.Constant(ir.IntType(32), 0))

    return vector.dtype(vector), code


PAIR_MOVES = (
    ([0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]),
    ([0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]),
    ([0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]),
)
"""Lanes of two vectors that three rounds of moves bring together, when pairs of eight vectors are mixed."""


@intrinsic
def folded_together(typing_context, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """Vector of the sums of eight vectors, each added up as `folded` does.

    Parameters
    ----------
    typing_context
        Given by numba.
    a, b, c, d, e, f, g, h
        Vectors of doubles.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vectors = list(arguments)
        # Folded alone, a vector leaves more lanes idle at each level. Eight together keep all lanes busy. Their lanes
        # move within pairs first, and in pairs then: many processors take longer for any other moves.
        for low, high in PAIR_MOVES:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [builder.fadd(shuffle_of(builder, x, y, low), shuffle_of(builder, x, y, high)) for x, y in pairs]
        return vectors[0]

    return DOUBLES(*[DOUBLES] * WIDE), code


@intrinsic
def lanes_up_to(typing_context, vector, number):  # type: ignore[no-untyped-def]
    """Bit mask of the lanes that are no greater than a number; the first lane is the lowest bit.

    Parameters
    ----------
    typing_context
        Given by numba.
    vector, number
        Vector, and number of the same precision.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes = builder.fcmp_ordered("<=", arguments[0], splat_of(builder, arguments[1], vector.count))
        return builder.zext(builder.bitcast(lanes, ir.IntType(vector.count)), ir.IntType(64))

    return types.int64(vector, vector.dtype), code


@intrinsic
def lowest_bit(typing_context, mask):  # type: ignore[no-untyped-def]
    """Index of the lowest bit that is set.

    Parameters
    ----------
    typing_context
        Given by numba.
    mask
        Bit mask with at least one bit set.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        # The flag leaves the result for 0 undefined, which saves a test: masks here have a bit.
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), code


@intrinsic
def prefetch(typing_context, array, at):  # type: ignore[no-untyped-def]
    """Ask the processor to load the memory of an element, which may lie beyond the end of the array.

    Parameters
    ----------
    typing_context
        Given by numba.
    array, at
        Array, and index of the element.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = pointer_to(context, builder, array, arguments)
        word = ir.IntType(32)
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word]), "llvm.prefetch.p0"
        )
        # The numbers mean: for reading, with moderate reuse, in a data cache.
        builder.call(function, [pointer, ir.Constant(word, 0), ir.Constant(word, 2), ir.Constant(word, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), code
