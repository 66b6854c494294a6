"""Pooling loops over time points, compiled by numba for the CPU and tiled for its cache; `reference` has them in torch.

Responses are computed with the operations, and in the order, of the reference implementation, so that counts are equal.

Shape letters: R rows (series of one channel), L time points, D dilations, K kernels, F features, V views, G groups.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

TILE = 512
"""Time points whose responses are held at once: nine shifted copies of a tile fit a CPU's first cache."""


def _jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function so that it runs without the GIL; cache the result on disk where a folder can be written."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            compiled: Callable[..., Any] = njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # what numba raises where it may write to no folder
            compiled = njit(nogil=True, **options)(function)
        return compiled

    return decorate


_REORDER = {"reassoc", "nsz"}
"""Only sums may be reordered; no multiplication is contracted with an addition, and infinity stays what it is."""

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


@intrinsic
def _above(typing_context, values, start, bias):
    """Make a compiled function of `values[start : start + 64] > bias` as a word: LLVM compares whole vectors."""

    def generate(context, builder, signature, arguments):
        vector, int32 = ir.VectorType(ir.FloatType(), 64), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        part = builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), vector.as_pointer()), align=4)
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[2], int32(0))
        everywhere = ir.Constant(ir.VectorType(int32, 64), [0] * 64)
        bound = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), everywhere)
        return builder.bitcast(builder.fcmp_ordered(">", part, bound), ir.IntType(64))

    return types.uint64(types.Array(types.float32, 1, "C"), types.intp, types.float32), generate


@_jit()
def _pack(values, bias, words):
    """Fill `words` with a bit for each value of a tile: 1 where it is above the bias, the first in the lowest bit."""
    for w in range(len(words)):
        words[w] = _above(values, 64 * w, bias)


@_jit()
def _count(words):
    """Count the ones in the words."""
    count = np.uint64(0)
    for word in words:
        count += _num_ones(word)
    return np.int64(count)


@_jit()
def _longest_run(words, run, longest, begins):
    """Continue the search for the longest run of ones over further words.

    Nothing in it is a branch that the next word decides, which a processor could not foresee.

    Args:
        words: the next 64 points each, lowest bit first.
        run: length of the run that the words before end with.
        longest: length of the longest run up to there.
        begins: as many words, for what is computed.

    Returns:
        `run` and `longest` after these words.
    """
    if longest < 64:
        left, covered = longest, 1
        some = np.uint64(0)
        for w in range(_WORDS):
            begins[w] = words[w]
            some |= words[w]
        while left > 0:  # leave a one where a run within a word begins that is longer than the longest
            step = min(covered, left)
            some = np.uint64(0)
            for w in range(_WORDS):
                begins[w] &= begins[w] >> np.uint64(step)
                some |= begins[w]
            left -= step
            covered += step
        while some:
            longest += 1
            some = np.uint64(0)
            for w in range(_WORDS):
                begins[w] &= begins[w] >> np.uint64(1)
                some |= begins[w]
    for w in range(_WORDS):  # runs over the end of a word
        first_ones = np.int64(_num_trailing_zeros(~words[w]))
        longest = max(longest, run + first_ones)
        run = run + 64 if first_ones == 64 else np.int64(_num_leading_zeros(~words[w]))
    return run, longest


@_jit()
def _positions(words):
    """Sum the positions of the ones: of each bit of a position, how many ones have it."""
    total = np.int64(0)
    for w in range(len(words)):
        word = words[w]
        total += 64 * w * np.int64(_num_ones(word))
        for bit in range(6):
            total += np.int64(_num_ones(word & _HAS_BIT[bit])) << bit
    return total


@_jit(fastmath=_REORDER)
def _excess(values, low, high, bias):
    """Sum by how much the values in `[low, high)` are above the bias, where they are."""
    total = np.float32(0)
    part = values[low:high]
    for j in range(len(part)):
        total += part[j] - bias if part[j] > bias else np.float32(0)
    return total


@_jit()
def _set_bits(words, low, high):
    """Fill `words` with ones in `[low, high)` and zeros elsewhere."""
    for w in range(len(words)):
        start, stop = min(max(low - 64 * w, 0), 64), min(max(high - 64 * w, 0), 64)
        words[w] = np.uint64(0)
        if stop > start:
            ones = _ALL_ONES if stop - start == 64 else (np.uint64(1) << np.uint64(stop - start)) - np.uint64(1)
            words[w] = ones << np.uint64(start)


@_jit()
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


@_jit()
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
    alpha = np.empty(TILE, np.float32)
    response = np.empty(TILE, np.float32)
    words = np.empty(_WORDS, np.uint64)
    kept = np.empty((2, _WORDS), np.uint64)  # a tile's observed points, and those whose taps all lie inside
    seen, begins = np.empty(_WORDS, np.uint64), np.empty(_WORDS, np.uint64)
    mask_as_float = np.zeros(TILE, np.float32)
    for r in range(len(x)):
        end = ends[r]
        has_mask = mask.shape[1] > 0
        once = np.zeros(end + 2 * pad, np.float32)
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
                m = min(TILE, end - start)  # points of this tile
                at = pad - 4 * dilation + start
                alpha[:m] = once[at : at + m]
                for tap in range(1, 9):
                    shifted = once[at + tap * dilation : at + tap * dilation + m]
                    for j in range(m):
                        alpha[j] += shifted[j]
                low = min(max(border - start, 0), m)
                high = max(min(end - border - start, m), low)
                _set_bits(kept[0], 0, m)
                _set_bits(kept[1], low, high)
                if has_mask:
                    for j in range(TILE):
                        mask_as_float[j] = np.float32(mask[r, start + j]) if j < m else np.float32(0)
                    _pack(mask_as_float, np.float32(0), seen)
                    kept[0] &= seen
                    kept[1] &= seen
                observed[0] += _count(kept[0])
                observed[1] += _count(kept[1])
                response[m:] = 0
                for k in range(num_kernels):
                    first_tap = thrice[at + taps[k, 0] * dilation : at + taps[k, 0] * dilation + m]
                    second_tap = thrice[at + taps[k, 1] * dilation : at + taps[k, 1] * dilation + m]
                    third_tap = thrice[at + taps[k, 2] * dilation : at + taps[k, 2] * dilation + m]
                    for j in range(m):
                        response[j] = ((first_tap[j] - alpha[j]) + second_tap[j]) + third_tap[j]
                    inner = (d + k) % 2
                    if has_mask and poolings == 4:
                        for j in range(m):
                            response[j] = response[j] if mask_as_float[j] > 0 else -np.inf
                    for q in range(num_biases):
                        f = k * num_biases + q
                        for w in range(_WORDS):
                            words[w] = _above(response, 64 * w, bias[f]) & kept[inner, w]
                        above = _count(words)
                        count[f] += above
                        if poolings > 1:
                            run[f], longest[f] = _longest_run(words, run[f], longest[f], begins)
                        if poolings == 4:
                            total[f] += _excess(response, low if inner else 0, high if inner else m, bias[f])
                            position[f] += _positions(words) + start * above
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


@_jit()
def _race(padded, at, dilation, m, weight, k, largest, smallest, winner, loser):
    """Compare the responses of kernel k at `m` points with the largest and smallest of the kernels before it.

    Args:
        padded: the row, with zeros around it.
        at: position in it of the first point's first tap.
        dilation: between taps.
        m: number of points.
        weight: `(9,)`.
        k: number of the kernel in its group.
        largest, smallest: at least `m` responses each, which are updated.
        winner, loser: the kernels of these responses.
    """
    a, b, c = padded[at:], padded[at + dilation :], padded[at + 2 * dilation :]
    d, e, f = padded[at + 3 * dilation :], padded[at + 4 * dilation :], padded[at + 5 * dilation :]
    g, h, i = padded[at + 6 * dilation :], padded[at + 7 * dilation :], padded[at + 8 * dilation :]
    for j in range(m):
        response = weight[0] * a[j] + weight[1] * b[j] + weight[2] * c[j] + weight[3] * d[j] + weight[4] * e[j]
        response = response + weight[5] * f[j] + weight[6] * g[j] + weight[7] * h[j] + weight[8] * i[j]
        winner[j] = np.int32(k) if response > largest[j] else winner[j]
        largest[j] = response if response > largest[j] else largest[j]
        loser[j] = np.int32(k) if response < smallest[j] else loser[j]
        smallest[j] = response if response < smallest[j] else smallest[j]


@_jit(fastmath=_REORDER)
def _add_values(values, winner, total):
    """Add to the total of each kernel the values of the points that it won."""
    for k in range(len(total)):
        won = np.float32(0)
        for j in range(len(values)):
            won += values[j] if winner[j] == np.int32(k) else np.float32(0)
        total[k] += won


@_jit()
def _add_counts(winner, count):
    """Add to the count of each kernel the number of points that it won."""
    for k in range(len(count)):
        number = np.int32(0)
        for j in range(len(winner)):
            number = np.int32(number + np.int32(winner[j] == np.int32(k)))  # else it would be 64 bits wide
        count[k] += number


@_jit()
def compete(x, ends, mask, weight, dilations, out):
    """Let the kernels of each group compete at each point; see `reference.compete`.

    Args:
        x, ends, mask: see `pool_kernels`.
        weight: `(D, G, K, 9)` float32.
        dilations: `(D,)` int64.
        out: `(R, 2, D, G, K)` float32, which is filled.
    """
    _, num_groups, num_kernels, _ = weight.shape
    pad = 4 * dilations.max()
    largest, smallest = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    winner, loser = np.empty(TILE, np.int32), np.empty(TILE, np.int32)
    for r in range(len(x)):
        end = ends[r]
        has_mask = mask.shape[1] > 0
        padded = np.zeros(end + 2 * pad, np.float32)
        padded[pad : pad + end] = x[r, :end]
        for d in range(len(dilations)):
            dilation = dilations[d]
            total = np.zeros((num_groups, num_kernels), np.float64)
            lost = np.zeros((num_groups, num_kernels), np.int64)
            for start in range(0, end, TILE):
                m = min(TILE, end - start)  # points of this tile
                at = pad - 4 * dilation + start
                for g in range(num_groups):
                    largest[:m], smallest[:m], winner[:m], loser[:m] = -np.inf, np.inf, 0, 0
                    for k in range(num_kernels):
                        _race(padded, at, dilation, m, weight[d, g, k], k, largest, smallest, winner, loser)
                    if has_mask:
                        for j in range(m):
                            winner[j] = winner[j] if mask[r, start + j] else np.int32(-1)
                            loser[j] = loser[j] if mask[r, start + j] else np.int32(-1)
                    _add_values(largest[:m], winner[:m], total[g])
                    _add_counts(loser[:m], lost[g])
            out[r, 0, d] = total
            out[r, 1, d] = lost
