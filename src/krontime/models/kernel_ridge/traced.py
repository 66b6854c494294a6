"""Implementation of what the closed form computes, for tracing: loops are scans, and no shape depends on a value.

A graph with the operations of every dilation and bias written out would have tens of thousands of them, and one for any
number of series is traced several times slower than one for a single row; so rows and dilations are scanned over, one
of each at a time. Responses are computed with the operations, and in the order, of the reference implementation, so
that counts are equal.

Shape letters: R rows (series of one channel), C channels, L time points, D dilations, K kernels, F features, G groups,
S steps, Q biases of a kernel in a step, P poolings.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from krontime.models.torch_internals import scan


def for_each(function: Callable[..., Tensor], *numbers: Tensor) -> Tensor:
    """Stack what a function returns for each element of `numbers`: by a scan while tracing, by a loop elsewhere.

    Args:
        function: takes a `(1,)` int64 tensor of each of `numbers`, and has no side effect.
        numbers: `(n,)` int64 each.
    """
    columns = tuple(number[:, None] for number in numbers)
    if not torch.compiler.is_compiling():
        return torch.stack([function(*number) for number in zip(*columns, strict=True)])

    def step(carry: Tensor, number: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return carry.clone(), function(*number)  # nothing is carried, but a scan asks for something

    return scan(step, torch.zeros(1), columns)[1]


def _pairs(num_rows: int, num_steps: int) -> tuple[Tensor, Tensor]:
    """Number all pairs of a row and a step, a row's steps one after the other: two int64 tensors `(R * S,)`."""
    row = torch.arange(num_rows)[:, None].expand(-1, num_steps)
    step = torch.arange(num_steps)[None].expand(num_rows, -1)
    return row.reshape(-1), step.reshape(-1)


class Steps(NamedTuple):
    """The steps of a scan over dilations and biases, each of one dilation and equally many biases of each kernel.

    A dilation with more biases than most takes several steps, so that none is padded with many that do not exist.

    Attributes:
        largest: largest dilation.
        dilation: `(S,)` that of each step.
        is_inner: `(S, K)` whether a kernel is pooled only where none of its taps lies outside of the series.
        columns: `(S, K, Q)` the features whose biases a step takes; F where there is none.
        order: `(F,)` the position of each feature in the flattened `(S, K, Q)` results of the steps.
    """

    largest: int
    dilation: Tensor
    is_inner: Tensor
    columns: Tensor
    order: Tensor

    @classmethod
    def of(cls, dilations: list[int], offsets: list[int], num_kernels: int) -> "Steps":
        """Plan the steps for the arguments of `reference.pool_kernels`."""
        num_biases = [(offsets[d + 1] - offsets[d]) // num_kernels for d in range(len(dilations))]
        biases_per_step = statistics.mode(num_biases)
        steps = [(d, start) for d, count in enumerate(num_biases) for start in range(0, count, biases_per_step)]
        kernel = np.arange(num_kernels)
        columns = np.full((len(steps), num_kernels, biases_per_step), offsets[-1])
        order = np.zeros(offsets[-1], np.int64)
        for s, (d, start) in enumerate(steps):
            for q in range(min(biases_per_step, num_biases[d] - start)):
                feature = offsets[d] + kernel * num_biases[d] + start + q
                columns[s, :, q] = feature
                order[feature] = (s * num_kernels + kernel) * biases_per_step + q
        number = np.array([d for d, _ in steps])
        is_inner = (number[:, None] + kernel) % 2 == 1
        dilation = np.array(dilations)[number]
        return cls(max(dilations), *map(torch.from_numpy, (dilation, is_inner, columns, order)))


def _taps(x: Tensor, dilation: Tensor, largest: int) -> Tensor:
    """Return what each of a kernel's nine taps sees at each point of a row `(L,)`: `(9, L)`, 0 outside.

    Args:
        x: the row.
        dilation: `(1,)`, at most `largest`.
        largest: the largest dilation.
    """
    padded = F.pad(x, (4 * largest, 4 * largest))
    point = torch.arange(x.shape[0])
    tap = torch.arange(-4, 5)
    return padded[4 * largest + point + tap[:, None] * dilation]


def pool_kernels(
    x: Tensor, observed: Tensor, channel: Tensor, steps: Steps, biases: Tensor, taps: Tensor, *, poolings: int
) -> Tensor:
    """Pool as `reference.pool_kernels` does; `steps` stand for its dilations and offsets."""
    point = torch.arange(x.shape[1])
    nothing = torch.full_like(biases[:, :1], torch.inf)  # no response is above it
    biases_CSKQ = torch.cat([biases, nothing], dim=1)[:, steps.columns]
    dilations_S, is_inner_SK = (
        steps.dilation.clone(),
        steps.is_inner.clone(),
    )  # copies that the tracer knows: a scan takes no constants

    def pooled(row: Tensor, step: Tensor) -> Tensor:
        seen = observed.index_select(0, row)[0]
        end = torch.where(seen, point + 1, 0).amax(dim=0)
        dilation = dilations_S.index_select(0, step)
        bias_KQ = biases_CSKQ.index_select(0, channel.index_select(0, row))[0].index_select(0, step)[0]
        responses_KL = _kernel_responses(_taps(x.index_select(0, row)[0], dilation, steps.largest), taps)
        border = torch.where(end > 8 * dilation, 4 * dilation, 0)
        inside = seen & (point >= border) & (point < end - border)
        pooled_KL = seen & (inside | ~is_inner_SK.index_select(0, step)[0][:, None])
        points = pooled_KL.float().sum(dim=-1).clamp(min=1)
        responses_KL = torch.where(pooled_KL, responses_KL, -torch.inf)
        features = [
            _pooled(responses_KL, bias_KQ[:, q, None], points, point, end, poolings) for q in range(bias_KQ.shape[1])
        ]
        return torch.stack(features, dim=-1)

    num_steps = steps.dilation.shape[0]
    pooled_RSPKQ = for_each(pooled, *_pairs(x.shape[0], num_steps)).unflatten(0, (-1, num_steps))
    return pooled_RSPKQ.transpose(1, 2).flatten(2)[..., steps.order]


def _kernel_responses(seen_9L: Tensor, taps: Tensor) -> Tensor:
    """Return the responses `(K, L)` to one row, as `reference.kernel_responses` does."""
    total = seen_9L[0]
    for tap in range(1, 9):
        total = total + seen_9L[tap]
    thrice = 3 * seen_9L
    a, b, c = (thrice[taps[:, i]] for i in range(3))
    return ((a - total) + b) + c


def _pooled(responses: Tensor, bias: Tensor, points: Tensor, point: Tensor, end: Tensor, poolings: int) -> Tensor:
    """Pool responses `(K, L)`, which are minus infinity where they do not count, into features `(P, K)`.

    Args:
        responses: `(K, L)`.
        bias: `(K, 1)`.
        points: `(K,)`, number of points that count.
        point: `(L,)`, positions.
        end: number of points before the padding.
        poolings: P.
    """
    above = responses > bias
    number = above.float()
    count = number.sum(dim=-1)
    features = [count / points]
    if poolings > 1:
        features.append(_longest_run(number) / points)
    if poolings == 4:
        at_least_one = count.clamp(min=1)
        features.append(torch.where(above, responses - bias, 0).sum(dim=-1) / at_least_one)
        position = torch.where(above, point, 0).sum(dim=-1) / at_least_one
        features.append(torch.where(count > 0, (position + 0.5) / end.clamp(min=1), 0.5))
    return torch.stack(features)


def _longest_run(above: Tensor) -> Tensor:
    """Return the length of the longest run of ones among zeros, over the last axis.

    Neighbouring stretches are joined, level by level: how many ones a stretch begins with, how many it ends with, and
    its longest run give the same three numbers of two stretches joined. The work is linear in the number of points.
    """
    num_levels = (above.shape[-1] - 1).bit_length()
    begin = F.pad(above, (0, 2**num_levels - above.shape[-1]))
    end, longest = begin, begin
    for level in range(num_levels):
        size = 2**level
        (begin_a, begin_b), (end_a, end_b), (longest_a, longest_b) = (
            lengths.unflatten(-1, (-1, 2)).unbind(dim=-1) for lengths in (begin, end, longest)
        )
        longest = torch.maximum(torch.maximum(longest_a, longest_b), end_a + begin_b)
        begin = torch.where(begin_a == size, begin_a + begin_b, begin_a)
        end = torch.where(end_b == size, end_a + end_b, end_b)
    return longest[..., 0]


def compete(x: Tensor, observed: Tensor, weight: Tensor, dilations: list[int]) -> Tensor:
    """Let kernels compete as `reference.compete` does."""
    kernel = torch.arange(weight.shape[2])[:, None]
    dilation = torch.tensor(dilations)

    def competed(row: Tensor, step: Tensor) -> Tensor:
        seen_9L = _taps(x.index_select(0, row)[0], dilation.index_select(0, step), max(dilations))
        weight_GK9 = weight.index_select(0, step)[0]
        responses = weight_GK9[..., 0, None] * seen_9L[0]
        for tap in range(1, 9):
            responses = responses + weight_GK9[..., tap, None] * seen_9L[tap]
        largest_GL, winner_GL = responses.max(dim=1)
        loser_GL = responses.argmin(dim=1)
        seen = observed.index_select(0, row)
        won = torch.where((winner_GL[:, None] == kernel) & seen, largest_GL[:, None], 0).sum(dim=-1)
        lost = ((loser_GL[:, None] == kernel) & seen).float().sum(dim=-1)
        return torch.stack([won, lost])

    competed_RD2GK = for_each(competed, *_pairs(x.shape[0], len(dilations))).unflatten(0, (-1, len(dilations)))
    return competed_RD2GK.transpose(1, 2)


def spectra(x: Tensor, end: Tensor) -> Tensor:
    """Return the magnitudes `(R, L // 2 + 1)` of the discrete Fourier transform of each row up to its own end.

    Computed by a convolution with a chirp (Bluestein 1970), so that one size of transform serves every end, in float64.

    Args:
        x: `(R, L)`, 0 from each row's end on.
        end: `(R,)` int64, at least 1; the transform is divided by its square root.
    """
    num_points = x.shape[1]
    size = 2 ** (2 * num_points - 1).bit_length()
    point = torch.arange(num_points)
    end = end[:, None]
    angle = (point * point % (2 * end)).double() * (torch.pi / end.double())
    chirp_cos, chirp_sin = angle.cos(), angle.sin()
    # Complex numbers only where the transforms need them: few operations of ONNX take them.
    signal = torch.complex(
        *(F.pad(component, (0, size - num_points)) for component in (x * chirp_cos, -(x * chirp_sin)))
    )
    gap = torch.zeros(x.shape[0], size - 2 * num_points + 1, dtype=torch.float64)
    chirp = torch.complex(*(torch.cat([half, gap, half[:, 1:].flip(1)], dim=1) for half in (chirp_cos, chirp_sin)))
    magnitude = torch.fft.ifft(torch.fft.fft(signal) * torch.fft.fft(chirp)).abs()[:, : num_points // 2 + 1]
    return (magnitude / end.double().sqrt()).to(x.dtype)


def interval_points(x: Tensor, seen: Tensor, lengths: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Gather the points of the intervals of one level, which are fractions of each row's own length.

    Args:
        x: `(R, L)`.
        seen: `(R, L)` bool.
        lengths: `(R,)` int64, at least 1.
        level: the intervals are `2 ** level` equal ones, and all but the last of these shifted by half an interval.

    Returns:
        Values `(R, I, W)`, 0 where they are not seen or beyond the interval, and `(R, I, W)` bool, true elsewhere.
    """
    # Computed, since a scan takes no constants.
    number = torch.arange(2**level, dtype=torch.float64, device=x.device)
    width = 2.0**-level
    start = width * (torch.cat([number, number[:-1] + 0.5]) if level else number)
    length = lengths[:, None]
    low = (start * length).round().long()
    high = torch.maximum(low + 1, ((start + width) * length).round().long())
    is_beyond = high > length
    low, high = torch.where(is_beyond, length - 1, low), torch.where(is_beyond, length, high)
    num_points = x.shape[1]
    position = low[..., None] + torch.arange(num_points // 2**level + 2, device=x.device)
    flat = position.clamp(max=num_points - 1).flatten(1)
    inside = (position < high[..., None]) & seen.gather(1, flat).view(position.shape)
    return torch.where(inside, x.gather(1, flat).view(position.shape), 0), inside
