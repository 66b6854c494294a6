"""Features that pool the responses of MiniRocket's kernels over whole series.

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
"""Number of dilations at most, as in MiniRocket."""

_BIAS_POINTS = 4096
"""Number of points of a response, about evenly spaced, that the quantiles for biases are taken of."""


class KernelPoolings(Features):
    """Features that pool the responses of MiniRocket's kernels to a series, and to its first difference.

    Proportions of points above a bias are the features of MiniRocket (Dempster, Schmidt, Webb 2021, arXiv 2012.08791);
    the longest run of these points, the mean of what lies above, and the mean position are those that MultiRocket has
    beside them (Tan et al. 2022, arXiv 2102.00457). Each channel has its own features and biases.

    Args:
        num_channels: C.
        length: of the longest training series.
        scaling: see `Features`.
        num_features: features at most.
        poolings: how many: 1 for the proportion, 2 for the longest run too, 4 for mean and position too.
        difference: whether the first difference is convolved beside the series.
        seed: of the draw of the training series that biases come from.

    Attributes:
        offsets: `D + 1` positions: the features of dilation d are `offsets[d]:offsets[d + 1]`, a kernel's together.
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
        max_biases = num_features // (num_channels * poolings * num_views)  # one for each feature of a pooling
        num_kernels = max(1, min(len(TAPS), max_biases))
        chosen = [i * len(TAPS) // num_kernels for i in range(num_kernels)]
        self.register_buffer("taps", torch.tensor([TAPS[i] for i in chosen]), persistent=False)
        self.dilations, num_biases = _dilations(length, max_biases // num_kernels)
        self.offsets = [0, *itertools.accumulate(num_kernels * n for n in num_biases)]
        self.register_buffer("biases", torch.zeros(num_views, num_channels, self.offsets[-1]))
        self.num_features = num_channels * poolings * num_views * self.offsets[-1]
        self.steps = traced.Steps.of(self.dilations, self.offsets, num_kernels)

    def _fit(self, rows: Rows) -> None:
        """Set the biases of a kernel and dilation to quantiles of its response to one training series, drawn for it."""
        generator = torch.Generator().manual_seed(self.seed)
        # Multiples of the golden ratio modulo 1 fill the unit interval evenly, as in MiniRocket.
        fractions = (torch.arange(1, self.offsets[-1] + 1).double() * ((math.sqrt(5) + 1) / 2)) % 1
        for view, biases in zip(self._views(rows), self.biases, strict=True):
            has_points = view.seen.any(dim=1)
            for channel, bias in enumerate(biases):
                usable = ((view.channel == channel) & has_points).nonzero()[:, 0]
                if not len(usable):
                    continue
                for d in range(len(self.dilations)):
                    drawn = usable[torch.randint(len(usable), (len(self.taps),), generator=generator)]
                    of_dilation = slice(self.offsets[d], self.offsets[d + 1])
                    bias[of_dilation] = self._response_quantiles(view.select(drawn), d, fractions[of_dilation])

    def _response_quantiles(self, rows: Rows, d: int, fractions: Tensor) -> Tensor:
        """Return quantiles of each kernel's response to its row, at one dilation.

        Args:
            rows: one for each kernel.
            d: number of the dilation.
            fractions: those of the first kernel, then those of the next, ...

        Returns:
            As many quantiles as fractions, in their order.
        """
        from krontime.models.kernel_ridge.compiled import sample_responses

        x, ends, seen, taps = (column.cpu().numpy() for column in (rows.x, rows.ends, rows.seen, self.taps))
        responses = np.full((len(x), min(x.shape[1], _BIAS_POINTS)), np.inf, np.float32)
        num_points = np.empty((len(x), 1), np.int64)
        sample_responses(x, ends, seen, self.dilations[d], taps, responses, num_points[:, 0])
        responses.sort(axis=1)
        position = fractions.view(len(x), -1).numpy() * (num_points - 1)
        low = position.astype(np.int64)
        lower = np.take_along_axis(responses, low, axis=1)
        upper = np.take_along_axis(responses, np.minimum(low + 1, num_points - 1), axis=1)
        return torch.from_numpy(lower + (upper - lower) * (position - low)).flatten()

    def _features(self, rows: Rows) -> Tensor:
        pooled = [self._pooled(view, self.biases[i]) for i, view in enumerate(self._views(rows))]
        return torch.cat([features.flatten(1) for features in pooled], dim=1)

    def _views(self, rows: Rows) -> list[Rows]:
        """List what is convolved: the rows, and their first difference where it is asked for."""
        return [rows, rows.difference()] if self.difference else [rows]

    def _pooled(self, rows: Rows, biases: Tensor) -> Tensor:
        """Return the poolings `(R, poolings, F)` of rows, by whichever implementation fits; biases `(C, F)`."""
        columns = rows.x, rows.seen, rows.channel
        if torch.compiler.is_compiling():
            return traced.pool_kernels(*columns, self.steps, biases, self.taps, poolings=self.poolings)
        if rows.x.device.type == "cpu":
            return self._pooled_by_threads(rows, biases)
        return reference.pool_kernels(*columns, self.dilations, self.offsets, biases, self.taps, poolings=self.poolings)

    def _pooled_by_threads(self, rows: Rows, biases: Tensor) -> Tensor:
        """Return what `_pooled` does, by the compiled loops, on as many threads as torch uses."""
        from krontime.models.kernel_ridge.compiled import pool_kernels

        x, ends, mask, channel = rows.arrays()
        out = np.empty((len(x), self.poolings, self.offsets[-1]), np.float32)
        shared: tuple[Any, ...] = (
            np.asarray(self.dilations),
            np.asarray(self.offsets),
            biases.numpy(),
            self.taps.numpy(),
            self.poolings,
        )
        in_threads(
            lambda chunk: pool_kernels(x[chunk], ends[chunk], mask[chunk], channel[chunk], *shared, out[chunk]), len(x)
        )
        return torch.from_numpy(out)


def _dilations(length: int, num_biases: int) -> tuple[list[int], list[int]]:
    """Choose dilations, and how many biases a kernel has at each, as MiniRocket does.

    Args:
        length: of the longest training series; no kernel is longer.
        num_biases: of a kernel, over all dilations; at least 1 is taken.

    Returns:
        Dilations that rise exponentially, and the number of biases at each.
    """
    num_biases = max(1, num_biases)
    count = min(num_biases, _MAX_DILATIONS)
    exponents = np.linspace(0, math.log2(max(1.0, (length - 1) / 8)), count)
    dilations, repeats = np.unique((2.0**exponents).astype(np.int64), return_counts=True)
    biases_each = (repeats * (num_biases / count)).astype(np.int64)
    for i in range(num_biases - biases_each.sum()):
        biases_each[i % len(biases_each)] += 1
    return dilations.tolist(), biases_each.tolist()
