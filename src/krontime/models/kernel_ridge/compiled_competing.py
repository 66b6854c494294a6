"""The loop in which random kernels compete at each point, compiled by numba for the CPU; `reference` has it in torch.

Shape letters: R rows (series of one channel), L time points, D dilations, G groups, K kernels of a group.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from krontime.models.kernel_ridge.compiled import REORDER, TILE, data_of, everywhere, jit, vector_of

_POINTS = 16
"""Time points that are worked on at once; it divides a tile's."""


@intrinsic
def _race(typing_context, row, at, dilation, weight, first, num_kernels, largest, smallest, winner, loser, point):
    """Make a compiled function that has the kernels of a group compete at sixteen points.

    The arguments of what it makes:
        row: the series, with zeros around it.
        at: position in it of the first point's first tap.
        dilation: between taps.
        weight: `(D, G, K, 9)`.
        first: position in it of the first kernel's first weight.
        num_kernels: K.
        largest, smallest, winner, loser: the largest and smallest response and the kernels that have it, written from
            position `point` on. The first of equal kernels has it.

    The points' values, and who leads, stay in the processor's vectors for all kernels. Products are added in the order
    of the taps, and never contracted.
    """

    def generate(context, builder, signature, arguments):
        kind, numbers, int64 = (
            ir.VectorType(ir.FloatType(), _POINTS),
            ir.VectorType(ir.IntType(32), _POINTS),
            ir.IntType(64),
        )
        row, at, dilation, weight, first, num_kernels, *out, point = data_of(context, builder, signature, arguments)
        values = [vector_of(builder, row, builder.add(at, builder.mul(dilation, int64(tap))), kind) for tap in range(9)]
        begin = [ir.Constant(kind, [float("-inf")] * _POINTS), ir.Constant(kind, [float("inf")] * _POINTS)]
        begin += [ir.Constant(numbers, [0] * _POINTS)] * 2
        state = [cgutils.alloca_once_value(builder, value) for value in begin]  # LLVM keeps them in registers
        with cgutils.for_range(builder, num_kernels) as loop:
            position = builder.add(first, builder.mul(loop.index, int64(9)))
            response = None
            for tap, value in enumerate(values):
                of_tap = builder.load(builder.gep(weight, [builder.add(position, int64(tap))]))
                product = builder.fmul(everywhere(builder, of_tap, kind), value)
                response = product if response is None else builder.fadd(response, product)
            kernel = everywhere(builder, builder.trunc(loop.index, ir.IntType(32)), numbers)
            for sign, best, who in ((">", state[0], state[2]), ("<", state[1], state[3])):
                is_ahead = builder.fcmp_ordered(sign, response, builder.load(best))
                builder.store(builder.select(is_ahead, response, builder.load(best)), best)
                builder.store(builder.select(is_ahead, kernel, builder.load(who)), who)
        for array, value in zip(out, state, strict=True):
            vector = builder.load(value)
            pointer = builder.bitcast(builder.gep(array, [point]), vector.type.as_pointer())
            builder.store(vector, pointer, align=4)
        return context.get_dummy_value()

    given = (row, at, dilation, weight, first, num_kernels, largest, smallest, winner, loser, point)
    return types.void(*given), generate


@jit(fastmath=REORDER)
def _add_values(values, winner, total):
    """Add to the total of each kernel the values of the points that it won."""
    for k in range(len(total)):
        won = np.float32(0)
        for j in range(len(values)):
            won += values[j] if winner[j] == np.int32(k) else np.float32(0)
        total[k] += won


@jit()
def _add_counts(winner, count):
    """Add to the count of each kernel the number of points that it won."""
    for k in range(len(count)):
        number = np.int32(0)
        for j in range(len(winner)):
            number = np.int32(number + np.int32(winner[j] == np.int32(k)))  # else it would be 64 bits wide
        count[k] += number


@jit()
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
        padded = np.zeros(end + 2 * pad + _POINTS, np.float32)
        padded[pad : pad + end] = x[r, :end]
        for d in range(len(dilations)):
            dilation = dilations[d]
            total = np.zeros((num_groups, num_kernels), np.float64)
            lost = np.zeros((num_groups, num_kernels), np.int64)
            for start in range(0, end, TILE):
                m = min(TILE, end - start)  # points of this tile
                at = pad - 4 * dilation + start
                for g in range(num_groups):
                    first = (d * num_groups + g) * num_kernels * 9
                    for j in range(0, m, _POINTS):  # those beyond the end, up to a whole vector, are not counted
                        _race(padded, at + j, dilation, weight, first, num_kernels, largest, smallest, winner, loser, j)
                    if has_mask:
                        for j in range(m):
                            winner[j] = winner[j] if mask[r, start + j] else np.int32(-1)
                            loser[j] = loser[j] if mask[r, start + j] else np.int32(-1)
                    _add_values(largest[:m], winner[:m], total[g])
                    _add_counts(loser[:m], lost[g])
            out[r, 0, d] = total
            out[r, 1, d] = lost
