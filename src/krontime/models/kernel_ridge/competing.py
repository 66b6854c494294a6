"""Features that count, over a whole series, where each of several competing kernels wins (Hydra).

Shape letters: B batch, C channels, L time points, R rows, D dilations, G groups, K kernels of a group.
"""

import numpy as np
import torch
from torch import Tensor

from krontime.models.kernel_ridge import reference, traced
from krontime.models.kernel_ridge.features import Features, Scaling
from krontime.models.kernel_ridge.rows import Rows, in_threads
from krontime.models.layers.kernels import dilations_within

_KERNELS = 8
"""Number of kernels of a group, as in Hydra."""


class CompetingKernels(Features):
    """Features that say which random kernel of a group has the largest response at a point, and which the smallest.

    After Hydra (Dempster, Schmidt, Webb 2023, arXiv 2203.13652): of the points where a kernel wins, its responses are
    summed; the points where it loses are counted. Square roots of both, as fractions of the observed points, are the
    features. One half of the groups sees the series, the other its first difference. Each channel has its own features;
    the kernels are the same for all.

    Args:
        num_channels: C.
        length: of the longest training series.
        scaling: see `Features`.
        num_features: features at most.
        seed: of the kernels.
    """

    weight: Tensor

    def __init__(self, *, num_channels: int, length: int, scaling: Scaling, num_features: int, seed: int = 0) -> None:
        super().__init__(num_channels=num_channels, scaling=scaling)
        num_dilations = dilations_within(length)
        self.dilations = [2**i for i in range(num_dilations)]
        features_per_group = num_channels * num_dilations * 2 * 2 * _KERNELS  # won and lost, of series and difference
        num_groups = max(1, min(32, num_features // features_per_group))
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(2, num_dilations, num_groups, _KERNELS, 9, generator=generator)
        weight -= weight.mean(dim=-1, keepdim=True)
        self.register_buffer("weight", weight / weight.abs().sum(dim=-1, keepdim=True))
        self.num_features = features_per_group * num_groups

    def _features(self, rows: Rows) -> Tensor:
        features = []
        for i, view in enumerate((rows, rows.difference())):
            points = view.seen.sum(dim=1).clamp(min=1)
            features.append((self._competed(view, self.weight[i]).flatten(1) / points[:, None]).clamp(min=0).sqrt())
        return torch.cat(features, dim=1)

    def _competed(self, rows: Rows, weight: Tensor) -> Tensor:
        """Let kernels of weights `(D, G, K, 9)` compete on rows; see `reference.compete`."""
        if torch.compiler.is_compiling():
            return traced.compete(rows.x, rows.seen, weight, self.dilations)
        if rows.x.device.type != "cpu":
            return reference.compete(rows.x, rows.seen, weight, self.dilations)
        from krontime.models.kernel_ridge.compiled_competing import compete

        x, ends, mask, _ = rows.arrays()
        out = np.empty((len(x), 2, *weight.shape[:3]), np.float32)
        shared = (weight.numpy(), np.asarray(self.dilations))
        in_threads(lambda chunk: compete(x[chunk], ends[chunk], mask[chunk], *shared, out[chunk]), len(x))
        return torch.from_numpy(out)
