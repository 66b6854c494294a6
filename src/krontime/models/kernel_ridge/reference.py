"""Reference implementation of the poolings in torch: for GPUs, and for tests to compare the compiled loops with.

Shape letters: R rows (series of one channel), L time points, D dilations, K kernels, F features, G groups.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def shifted(x: Tensor, dilation: int) -> list[Tensor]:
    """Return what each of a kernel's nine taps sees at each point of `(R, L)`: tensors of that shape, 0 outside."""
    padded = F.pad(x, (4 * dilation, 4 * dilation))
    return [padded[:, tap * dilation : tap * dilation + x.shape[1]] for tap in range(9)]


def kernel_responses(x: Tensor, dilation: int, taps: Tensor) -> Tensor:
    """Return the responses `(R, K, L)` of kernels of weight 2 at three `taps` `(K, 3)`, and -1 at the six others.

    Args:
        x: `(R, L)`.
        dilation: of all kernels.
        taps: `(K, 3)`, 0 to 8.
    """
    once = shifted(x, dilation)
    total = once[0]
    for tap in once[1:]:
        total = total + tap
    thrice = torch.stack([3 * tap for tap in once], dim=1)
    a, b, c = (thrice[:, taps[:, i]] for i in range(3))
    return ((a - total[:, None]) + b) + c


def pool_kernels(
    x: Tensor,
    observed: Tensor,
    channel: Tensor,
    dilations: list[int],
    offsets: list[int],
    biases: Tensor,
    taps: Tensor,
    *,
    poolings: int,
) -> Tensor:
    """Pool the responses of MiniRocket's kernels over the observed points of each row, above a bias for each feature.

    Every second kernel is pooled only where none of its taps lies outside of the series, as in MiniRocket, unless there
    is no such point.

    Args:
        x: `(R, L)`, 0 where nothing is observed.
        observed: `(R, L)` bool.
        channel: `(R,)` row of `biases`.
        dilations: D of them.
        offsets: `D + 1` positions: the features of dilation d are `offsets[d]:offsets[d + 1]`, a kernel's together.
        biases: `(C, F)`.
        taps: `(K, 3)` taps of weight 2.
        poolings: how many of those below: 1, 2 or 4.

    Returns:
        `(R, poolings, F)`: the proportion of points above the bias; the longest run of them as a fraction of all; the
        mean of what lies above the bias there, 0 without any; the mean position of these points, from 0 to 1, 0.5
        without any.
    """
    num_rows, length = x.shape
    point = torch.arange(length, device=x.device)
    end = torch.where(observed, point + 1, 0).amax(dim=1)
    out = x.new_zeros(num_rows, poolings, biases.shape[1])
    for d, dilation in enumerate(dilations):
        num_biases = (offsets[d + 1] - offsets[d]) // len(taps)
        responses = kernel_responses(x, dilation, taps)
        border = torch.where(end > 8 * dilation, 4 * dilation, 0)[:, None]
        inside = observed & (point >= border) & (point < end[:, None] - border)
        is_inner = (d + torch.arange(len(taps), device=x.device)) % 2 == 1
        pooled_RKL = torch.where(is_inner[:, None], inside[:, None], observed[:, None])
        points = pooled_RKL.sum(dim=-1).clamp(min=1)
        bias_RKB = biases[channel, offsets[d] : offsets[d + 1]].unflatten(1, (len(taps), num_biases))
        for q in range(num_biases):
            bias = bias_RKB[..., q, None]
            above = (responses > bias) & pooled_RKL
            features = slice(offsets[d] + q, offsets[d + 1], num_biases)
            count = above.sum(dim=-1)
            out[:, 0, features] = count / points
            if poolings > 1:
                out[:, 1, features] = _longest_run(above) / points
            if poolings < 4:
                continue
            at_least_one = count.clamp(min=1)
            out[:, 2, features] = torch.where(above, responses - bias, 0).sum(dim=-1) / at_least_one
            position = (above * point).sum(dim=-1) / at_least_one
            out[:, 3, features] = torch.where(count > 0, (position + 0.5) / end[:, None].clamp(min=1), 0.5)
    return out


def _longest_run(above: Tensor) -> Tensor:
    """Count the points of the longest run of true values over the last axis."""
    point = torch.arange(above.shape[-1], device=above.device)
    last_below = torch.where(above, -1, point).cummax(dim=-1).values
    return torch.where(above, point - last_below, 0).amax(dim=-1)


def compete(x: Tensor, observed: Tensor, weight: Tensor, dilations: list[int]) -> Tensor:
    """Let the kernels of each group compete at each point (Hydra, Dempster, Schmidt, Webb 2023, arXiv 2203.13652).

    Args:
        x, observed: see `pool_kernels`.
        weight: `(D, G, K, 9)`.
        dilations: D of them.

    Returns:
        `(R, 2, D, G, K)`: the sum of the responses where a kernel has the largest of its group, and the number of
        points where it has the smallest.
    """
    num_rows, num_kernels = len(x), weight.shape[2]
    out = x.new_zeros(num_rows, 2, *weight.shape[:3])
    for d, dilation in enumerate(dilations):
        taps = shifted(x, dilation)
        responses = weight[d, ..., 0, None] * taps[0][:, None, None]
        for i in range(1, 9):
            responses = responses + weight[d, ..., i, None] * taps[i][:, None, None]
        largest, winner = responses.max(dim=2)
        loser = responses.argmin(dim=2)
        for k in range(num_kernels):
            out[:, 0, d, :, k] = torch.where((winner == k) & observed[:, None], largest, 0).sum(dim=-1)
            out[:, 1, d, :, k] = ((loser == k) & observed[:, None]).sum(dim=-1)
    return out
