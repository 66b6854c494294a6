"""Poolings of MiniRocket's kernels over whole series.

Shape letters: B batch, C channels, L time points, R rows, F features of a pooling and channel.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krontime.models.kernel_ridge import reference, traced
from krontime.models.kernel_ridge.features import Features, Scaling
from krontime.models.kernel_ridge.rows import Rows, in_threads

TAPS = tuple(itertools.combinations(range(9), 3))
"""The taps of weight 2 of MiniRocket's 84 kernels; the six others have weight -1."""

_MAX_DILATIONS = 32
_BIAS_POINTS = 4096
"""Points of a response, evenly spaced, whose quantiles biases are."""


class KernelPoolings(Features):
    """Poolings of the responses of MiniRocket's kernels to a series, and to its first difference.

    Proportions of points above a bias are the features of MiniRocket (Dempster, Schmidt, Webb 2021, arXiv 2012.08791);
    the longest run of these points, the mean of what lies above, and the mean position are those that MultiRocket has
    beside them (Tan et al. 2022, arXiv 2102.00457). Each channel has its own.

    Args:
        num_channels: C.
        length: of the longest training series.
        scaling: see `Features`.
        num_features: features at most.
        poolings: 1 for the proportion, 2 for the longest run too, 4 for mean and position too.
        difference: whether the first difference is convolved beside the series.
        seed: of the sampling of biases.
    """

    biases: Tensor
    taps: Tensor

    def __init__(
        self,
        *,
        num_channels: int,
        length: int,
        scaling: Scaling,
        num_features: int,
        poolings: int,
        difference: bool,
        seed: int = 0,
    ) -> None:
        super().__init__(num_channels=num_channels, scaling=scaling)
        if poolings not in (1, 2, 4):
            raise ValueError(f"poolings={poolings}: expected 1, 2 or 4")
        self.poolings = poolings
        self.difference = difference
        self.seed = seed
        num_views = 2 if difference else 1
        each = num_features // (num_channels * poolings * num_views)
        num_kernels = max(1, min(len(TAPS), each))
        chosen = [i * len(TAPS) // num_kernels for i in range(num_kernels)]
        self.register_buffer("taps", torch.tensor([TAPS[i] for i in chosen]), persistent=False)
        self.dilations, num_biases = _dilations(length, each // num_kernels)
        self.first = [0, *itertools.accumulate(num_kernels * n for n in num_biases)]
        self.register_buffer("biases", torch.zeros(num_views, num_channels, self.first[-1]))
        self.num_features = num_channels * poolings * num_views * self.first[-1]
        self.steps = traced.Steps.of(self.dilations, self.first, num_kernels)

    def _fit(self, rows: Rows) -> None:
        """Draw each bias from the quantiles of the responses to one training series."""
        generator = torch.Generator().manual_seed(self.seed)
        quantiles = (torch.arange(1, self.first[-1] + 1).double() * ((math.sqrt(5) + 1) / 2)) % 1
        for view, biases in zip(self._views(rows), self.biases, strict=True):
            seen, ends = view.seen, view.ends
            for channel, bias in enumerate(biases):
                usable = ((view.channel == channel) & seen.any(dim=1)).nonzero()[:, 0]
                if not len(usable):
                    continue
                for d, dilation in enumerate(self.dilations):
                    drawn = usable[torch.randint(len(usable), (len(self.taps),), generator=generator)]
                    num_biases = (self.first[d + 1] - self.first[d]) // len(self.taps)
                    for k, row in enumerate(drawn.tolist()):
                        points = seen[row].nonzero()[:, 0]
                        points = points[:: -(-len(points) // _BIAS_POINTS)]
                        response = _responses_at(view.x[row], int(ends[row]), points, dilation, self.taps[k])
                        own = slice(self.first[d] + k * num_biases, self.first[d] + (k + 1) * num_biases)
                        bias[own] = torch.from_numpy(np.quantile(response.double().numpy(), quantiles[own].numpy()))

    def _features(self, rows: Rows) -> Tensor:
        pooled = [self._pooled(view, self.biases[i]) for i, view in enumerate(self._views(rows))]
        return torch.cat([part.flatten(1) for part in pooled], dim=1)

    def _views(self, rows: Rows) -> list[Rows]:
        return [rows, rows.difference()] if self.difference else [rows]

    def _pooled(self, rows: Rows, biases: Tensor) -> Tensor:
        of_rows = rows.x, rows.seen, rows.channel
        if torch.compiler.is_compiling():
            return traced.pool_kernels(*of_rows, self.steps, biases, self.taps, poolings=self.poolings)
        if rows.x.device.type == "cpu":
            return self._compiled(rows, biases)
        return reference.pool_kernels(*of_rows, self.dilations, self.first, biases, self.taps, poolings=self.poolings)

    def _compiled(self, rows: Rows, biases: Tensor) -> Tensor:
        from krontime.models.kernel_ridge.compiled import pool_kernels

        x, ends, mask, channel = rows.arrays()
        out = np.empty((len(x), self.poolings, self.first[-1]), np.float32)
        shared: tuple[Any, ...] = (
            np.asarray(self.dilations),
            np.asarray(self.first),
            biases.numpy(),
            self.taps.numpy(),
            self.poolings,
        )
        in_threads(
            lambda part: pool_kernels(x[part], ends[part], mask[part], channel[part], *shared, out[part]), len(x)
        )
        return torch.from_numpy(out)


def _dilations(length: int, num_biases: int) -> tuple[list[int], list[int]]:
    """Dilations that rise exponentially up to a kernel as long as the series, and biases of each, as in MiniRocket."""
    num_biases = max(1, num_biases)
    count = min(num_biases, _MAX_DILATIONS)
    exponents = np.linspace(0, math.log2(max(1.0, (length - 1) / 8)), count)
    dilations, repeats = np.unique((2.0**exponents).astype(np.int64), return_counts=True)
    each = (repeats * (num_biases / count)).astype(np.int64)
    for i in range(num_biases - each.sum()):
        each[i % len(each)] += 1
    return dilations.tolist(), each.tolist()


def _responses_at(x: Tensor, end: int, points: Tensor, dilation: int, taps: Tensor) -> Tensor:
    """Responses of one kernel to a row `(L,)` at chosen points."""
    positions = points[:, None] + (torch.arange(9) - 4) * dilation
    inside = (positions >= 0) & (positions < end)
    windows = torch.where(inside, x[positions.clamp(0, len(x) - 1)], 0.0)
    return 3 * windows[:, taps].sum(dim=1) - windows.sum(dim=1)
