"""Pooling loops over time points, compiled by numba for the CPU and tiled for its cache; `reference` has them in torch.

Responses are computed with the operations, and in the order, of the reference implementation, so that counts are equal.

Shape letters: R rows (series of one channel), L time points, D dilations, K kernels, F features, V views, G groups.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

TILE = 512
"""Time points whose responses are held at once: nine shifted copies of a tile fit a CPU's first cache."""


def jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function so that it runs without the GIL; cache the result on disk where a folder can be written."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            compiled: Callable[..., Any] = njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # what numba raises where it may write to no folder
            compiled = njit(nogil=True, **options)(function)
        return compiled

    return decorate


REORDER = {"reassoc", "nsz"}
"""Only sums may be reordered; no multiplication is contracted with an addition, and infinity stays what it is."""

_LANES = 16
"""Time points that are compared at once."""

_WORDS = TILE // 64
"""Number of 64-bit words that hold a bit for each point of a tile."""

_ALL_ONES = np.uint64(2**64 - 1)

_HAS_BIT = tuple(np.uint64(sum(1 << j for j in range(64) if j >> bit & 1)) for bit in range(6))
"""For each of the six bits of a position in a word, a word with ones at the positions that have it."""


def _bit_operation(operation: str, *flags: bool) -> Callable[..., Any]:
    """Make a compiled function of one 64-bit word from the LLVM operation of that name, one processor instruction."""

    @intrinsic
    def function(typing_context, word):
        def generate(context, builder, signature, arguments):
            constants = [context.get_constant(types.boolean, flag) for flag in flags]
            return getattr(builder, operation)(arguments[0], *constants)

        return types.uint64(types.uint64), generate

    return function


_num_ones = _bit_operation("ctpop")
_num_trailing_zeros = _bit_operation("cttz", False)
_num_leading_zeros = _bit_operation("ctlz", False)


def vector_of(builder: ir.IRBuilder, data: ir.Value, index: ir.Value, kind: ir.VectorType) -> ir.Value:
    """Load the vector of that type that begins at an index of an array's data."""
    return builder.load(builder.bitcast(builder.gep(data, [index]), kind.as_pointer()), align=4)


def everywhere(builder: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    """Make the vector of that type which holds one value everywhere."""
    undefined, int32 = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, value, int32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(int32, kind.count), [0] * kind.count))


def _llvm(builder: ir.IRBuilder, name: str, result: ir.Type, value: ir.Value) -> ir.Value:
    """Call LLVM's own function of that name."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [value.type]), name)
    return builder.call(function, [value])


def data_of(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> list[ir.Value]:
    """List the arguments of an intrinsic, and of arrays the pointer to their data."""
    return [
        context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


@intrinsic
def _mark_above(typing_context, values, start, added, start_added, biases, first, count, words, word):
    """Make a compiled function that sets `words[q, word]` to `values + added > biases[first + q]`, q up to `count`.

    It does so for the 64 points from `start` of `values` and `start_added` of `added`, the first in the lowest bit. The
    sums stay in the processor's registers for all biases.
    """

    def generate(context, builder, signature, arguments):
        kind, bits = ir.VectorType(ir.FloatType(), _LANES), ir.IntType(_LANES)
        values, start, added, start_added, biases, first, count, words, word = data_of(
            context, builder, signature, arguments
        )
        parts = [start.type(_LANES * i) for i in range(64 // _LANES)]
        totals = [
            builder.fadd(
                vector_of(builder, values, builder.add(start, part), kind),
                vector_of(builder, added, builder.add(start_added, part), kind),
            )
            for part in parts
        ]
        words = builder.bitcast(words, bits.as_pointer())
        with cgutils.for_range(builder, count) as loop:
            bias = everywhere(builder, builder.load(builder.gep(biases, [builder.add(first, loop.index)])), kind)
            position = builder.add(builder.mul(loop.index, word.type(_WORDS)), word)
            for i, total in enumerate(totals):
                part = builder.add(builder.mul(position, word.type(len(totals))), word.type(i))
                is_above = builder.bitcast(builder.fcmp_ordered(">", total, bias), bits)
                builder.store(is_above, builder.gep(words, [part]))
        return context.get_dummy_value()

    given = (values, start, added, start_added, biases, first, count, words, word)
    return types.void(*given), generate


@intrinsic
def _keep(typing_context, words, kept):
    """Make a compiled function that clears the ones of eight words that `kept` has not, and counts those that stay."""

    def generate(context, builder, signature, arguments):
        kind, int64 = ir.VectorType(ir.IntType(64), _WORDS), ir.IntType(64)
        words, kept = data_of(context, builder, signature, arguments)
        both = builder.and_(vector_of(builder, words, int64(0), kind), vector_of(builder, kept, int64(0), kind))
        builder.store(both, builder.bitcast(words, kind.as_pointer()), align=8)
        bits = _llvm(builder, f"llvm.ctpop.v{_WORDS}i64", kind, both)
        return _llvm(builder, f"llvm.vector.reduce.add.v{_WORDS}i64", int64, bits)

    return types.int64(words, kept), generate


@intrinsic
def _longest_within(typing_context, words):
    """Make a compiled function that returns the longest run of ones that lies within one of the eight words.

    A one is left where as many ones follow one another as the largest power of two that some word has, then as many as
    that and the next smaller powers that it has, too. No branch depends on the words, which a processor can't foresee.
    """

    def generate(context, builder, signature, arguments):
        kind, byte, int64 = ir.VectorType(ir.IntType(64), _WORDS), ir.IntType(8), ir.IntType(64)
        (words,) = data_of(context, builder, signature, arguments)

        def shortened(begins, step):
            """Of the ones, those that have another one so many places further on."""
            return builder.and_(begins, builder.lshr(begins, ir.Constant(kind, [step] * _WORDS)))

        def is_any(begins):
            is_set = builder.icmp_unsigned("!=", begins, ir.Constant(kind, [0] * _WORDS))
            return builder.icmp_unsigned("!=", builder.bitcast(is_set, byte), byte(0))

        begins = [vector_of(builder, words, int64(0), kind)]  # where 1, 2, 4, ... 64 ones begin
        for bit in range(6):
            begins.append(shortened(begins[-1], 1 << bit))
        power, current = int64(0), begins[0]
        for bit, of_power in enumerate(begins):
            has_any = is_any(of_power)
            power = builder.select(has_any, int64(1 << bit), power)
            current = builder.select(has_any, of_power, current)
        length = power
        for bit in reversed(range(6)):
            longer = shortened(current, 1 << bit)
            is_run = builder.and_(is_any(longer), builder.icmp_signed("<", int64(1 << bit), power))
            current = builder.select(is_run, longer, current)
            length = builder.select(is_run, builder.add(length, int64(1 << bit)), length)
        return length

    return types.int64(words), generate


@jit()
def _pack(flags, words):
    """Fill `words` with a bit for each flag of a tile, the first in the lowest bit."""
    for w in range(len(words)):
        words[w] = np.uint64(0)
        for j in range(64):
            words[w] |= np.uint64(flags[64 * w + j]) << np.uint64(j)


@jit()
def _count(words):
    """Count the ones in the words."""
    count = np.uint64(0)
    for word in words:
        count += _num_ones(word)
    return np.int64(count)


@jit()
def _longest_run(words, run, longest):
    """Continue the search for the longest run of ones over the words of a tile.

    Args:
        words: the next 64 points each, lowest bit first.
        run: length of the run that the words before end with.
        longest: length of the longest run up to there.

    Returns:
        `run` and `longest` after these words.
    """
    longest = max(longest, _longest_within(words))
    for w in range(_WORDS):  # runs over the end of a word
        first_ones = np.int64(_num_trailing_zeros(~words[w]))
        longest = max(longest, run + first_ones)
        run = run + 64 if first_ones == 64 else np.int64(_num_leading_zeros(~words[w]))
    return run, longest


@jit()
def _positions(words):
    """Sum the positions of the ones: of each bit of a position, how many ones have it."""
    total = np.int64(0)
    for w in range(len(words)):
        word = words[w]
        total += 64 * w * np.int64(_num_ones(word))
        for bit in range(6):
            total += np.int64(_num_ones(word & _HAS_BIT[bit])) << bit
    return total


@jit(fastmath=REORDER)
def _excess(values, low, high, bias):
    """Sum by how much the values in `[low, high)` are above the bias, where they are."""
    total = np.float32(0)
    part = values[low:high]
    for j in range(len(part)):
        total += part[j] - bias if part[j] > bias else np.float32(0)
    return total


@jit()
def _set_bits(words, low, high):
    """Fill `words` with ones in `[low, high)` and zeros elsewhere."""
    for w in range(len(words)):
        start, stop = min(max(low - 64 * w, 0), 64), min(max(high - 64 * w, 0), 64)
        words[w] = np.uint64(0)
        if stop > start:
            ones = _ALL_ONES if stop - start == 64 else (np.uint64(1) << np.uint64(stop - start)) - np.uint64(1)
            words[w] = ones << np.uint64(start)


@jit()
def sample_responses(x, ends, seen, dilation, taps, responses, num_points):
    """Compute the responses of each of MiniRocket's kernels to a row of its own, at evenly spaced observed points.

    Args:
        x: `(K, L)` float32, 0 where nothing is observed.
        ends: `(K,)` int64, points of each row before the padding at its end.
        seen: `(K, L)` bool, what is observed: one point of each row or more.
        dilation: of all kernels.
        taps: `(K, 3)` int64, taps of weight 2.
        responses: `(K, P)` float32, whose first columns are filled: with every observed point of a row if there are at
            most P, else with every second, third, ... of them.
        num_points: `(K,)` int64, which is filled: how many columns they are.
    """
    for k in range(len(taps)):
        points = np.nonzero(seen[k])[0]
        points = points[:: -(-len(points) // responses.shape[1])]
        num_points[k] = len(points)
        for i in range(len(points)):
            total, of_taps = np.float32(0), np.float32(0)
            for tap in range(9):
                at = points[i] + (tap - 4) * dilation
                value = x[k, at] if 0 <= at < ends[k] else np.float32(0)
                total += value
                if tap == taps[k, 0] or tap == taps[k, 1] or tap == taps[k, 2]:
                    of_taps += value
            responses[k, i] = np.float32(3) * of_taps - total


@jit()
def pool_kernels(x, ends, mask, channel, dilations, offsets, biases, taps, poolings, out):
    """Pool the responses of MiniRocket's kernels over each row; see `reference.pool_kernels`.

    Args:
        x: `(R, L)` float32, 0 where nothing is observed.
        ends: `(R,)` int64, points of each row before the padding at its end.
        mask: `(R, L)` bool, or of no columns where every point before the end is observed.
        channel: `(R,)` int64, row of `biases`.
        dilations: `(D,)` int64.
        offsets: `(D + 1,)` int64: the features of dilation d are `offsets[d]:offsets[d + 1]`, a kernel's together.
        biases: `(C, F)` float32.
        taps: `(K, 3)` int64, taps of weight 2.
        poolings: how many: 1 for the proportion, 2 for the longest run too, 4 for mean and position too.
        out: `(R, poolings, F)` float32, which is filled.
    """
    num_kernels = len(taps)
    pad = 4 * dilations.max()
    alpha, prefix = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    response = np.empty(TILE, np.float32)
    words = np.zeros((max(1, (offsets[1:] - offsets[:-1]).max() // num_kernels), _WORDS), np.uint64)
    kept = np.empty((2, _WORDS), np.uint64)  # a tile's observed points, and those whose taps all lie inside
    seen = np.empty(_WORDS, np.uint64)
    is_seen = np.zeros(TILE, np.bool_)
    for r in range(len(x)):
        end = ends[r]
        has_mask = mask.shape[1] > 0
        once = np.zeros(end + 2 * pad + TILE, np.float32)
        once[pad : pad + end] = x[r, :end]
        thrice = np.float32(3) * once
        for d in range(len(dilations)):
            dilation = dilations[d]
            num_biases = (offsets[d + 1] - offsets[d]) // num_kernels
            size = num_kernels * num_biases
            bias = biases[channel[r], offsets[d] : offsets[d + 1]]
            count = np.zeros(size, np.int64)
            total = np.zeros(size, np.float64)
            position = np.zeros(size, np.int64)
            run = np.zeros(size, np.int64)
            longest = np.zeros(size, np.int64)
            observed = np.zeros(2, np.int64)  # in the whole row, and where no tap lies outside
            border = 4 * dilation if end > 8 * dilation else 0
            for start in range(0, end, TILE):
                m = min(TILE, end - start)  # points of this tile; what is computed beyond them is not kept
                at = pad - 4 * dilation + start
                alpha[:] = once[at : at + TILE]
                for tap in range(1, 9):
                    shifted = once[at + tap * dilation : at + tap * dilation + TILE]
                    for j in range(TILE):
                        alpha[j] += shifted[j]
                low = min(max(border - start, 0), m)
                high = max(min(end - border - start, m), low)
                _set_bits(kept[0], 0, m)
                _set_bits(kept[1], low, high)
                if has_mask:
                    is_seen[:m] = mask[r, start : start + m]
                    is_seen[m:] = False
                    _pack(is_seen, seen)
                    kept[0] &= seen
                    kept[1] &= seen
                observed[0] += _count(kept[0])
                observed[1] += _count(kept[1])
                for k in range(num_kernels):
                    if k == 0 or taps[k, 0] != taps[k - 1, 0] or taps[k, 1] != taps[k - 1, 1]:
                        first_tap = thrice[at + taps[k, 0] * dilation : at + taps[k, 0] * dilation + TILE]
                        second_tap = thrice[at + taps[k, 1] * dilation : at + taps[k, 1] * dilation + TILE]
                        for j in range(TILE):
                            prefix[j] = (first_tap[j] - alpha[j]) + second_tap[j]
                    third = at + taps[k, 2] * dilation
                    for w in range((m + 63) // 64):
                        _mark_above(prefix, 64 * w, thrice, third + 64 * w, bias, k * num_biases, num_biases, words, w)
                    inner = (d + k) % 2
                    if poolings == 4:
                        third_tap = thrice[third : third + TILE]
                        for j in range(TILE):
                            response[j] = prefix[j] + third_tap[j]
                        if has_mask:
                            for j in range(TILE):
                                response[j] = response[j] if is_seen[j] else -np.inf
                    for q in range(num_biases):
                        f = k * num_biases + q
                        above = _keep(words[q], kept[inner])
                        count[f] += above
                        if poolings > 1:
                            run[f], longest[f] = _longest_run(words[q], run[f], longest[f])
                        if poolings == 4:
                            total[f] += _excess(response, low if inner else 0, high if inner else m, bias[f])
                            position[f] += _positions(words[q]) + start * above
            for k in range(num_kernels):
                points = max(observed[(d + k) % 2], 1)
                for f in range(k * num_biases, (k + 1) * num_biases):
                    out[r, 0, offsets[d] + f] = count[f] / points
                    if poolings > 1:
                        out[r, 1, offsets[d] + f] = longest[f] / points
                    if poolings == 4:
                        num_above = max(count[f], 1)
                        out[r, 2, offsets[d] + f] = total[f] / num_above
                        out[r, 3, offsets[d] + f] = (position[f] / num_above + 0.5) / end if count[f] else 0.5
