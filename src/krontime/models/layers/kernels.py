"""Fixed kernels, and their responses pooled inside each patch of a series.

Shape letters: R rows (series of one channel), L time points, P patch length, N patches, F features of a patch.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.errors import Problems
from krontime.models.layers.patches import num_patches


def minirocket_kernels() -> Tensor:
    """The 84 fixed kernels of MiniRocket (Dempster, Schmidt, Webb 2021, arXiv 2012.08791).

    Returns:
        `(84, 1, 9)` float32: weight 2 at three of the nine taps, -1 at the others.
    """
    kernels = torch.full((84, 1, 9), -1.0)
    for row, taps in enumerate(itertools.combinations(range(9), 3)):
        kernels[row, 0, list(taps)] = 2.0
    return kernels


def mean_and_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(F,)` of features `(n, F)`; 1 for the deviation of one that does not vary."""
    scale = values.std(dim=0, unbiased=False)
    return values.mean(dim=0), torch.where(scale > 1e-6, scale, torch.ones_like(scale))


def dilations_within(length: int) -> int:
    """How many of the dilations 1, 2, 4, ... leave a kernel of nine taps shorter than the series, as in MiniRocket."""
    return max(1, ((length - 1) // 8).bit_length())


class PatchFeatures(NamedTuple):
    """What `KernelFeatures` and `patch_spectra` return.

    Attributes:
        values: `(R, N, F)`, zero where a patch holds no observed point.
        observed: `(R, N)` or `(1, N)`, observed points of each patch.
    """

    values: Tensor
    observed: Tensor


class KernelFeatures(nn.Module):
    """Responses of MiniRocket's fixed kernels at dilations 1, 2, 4, ..., pooled inside each patch.

    A response is compared with a bias drawn from the quantiles of the responses to training series. Two poolings of it
    are kept for each patch: the mean of what lies above the bias (after MultiRocket, Tan et al. 2022,
    arXiv 2102.00457), and the proportion of points above it (MiniRocket's).

    Args:
        patch_length: P.
        stride: points from the start of one patch to the next; at most `patch_length`.
        num_dilations: dilations 1, 2, ..., `2 ** (num_dilations - 1)`.
        num_biases: biases for each kernel and dilation.
        difference: whether the first difference of the series is convolved beside the series.
        seed: of the sampling of biases.
        num_kernels: how many of the 84 kernels, evenly spread over them.

    Raises:
        ValueError: names every option that cannot work.
    """

    kernels: Tensor
    biases: Tensor

    def __init__(
        self,
        *,
        patch_length: int,
        stride: int,
        num_dilations: int,
        num_biases: int = 1,
        difference: bool = True,
        seed: int = 0,
        num_kernels: int = 84,
    ) -> None:
        super().__init__()
        problems = Problems()
        for name, value in (("num_dilations", num_dilations), ("num_biases", num_biases)):
            if value < 1:
                problems.add(name, value, "at least 1")
        problems.raise_value_error()
        self.patch_length = patch_length
        self.stride = stride
        self.dilations = [2**i for i in range(num_dilations)]
        self.num_biases = num_biases
        self.difference = difference
        self.seed = seed
        kernels = minirocket_kernels()
        kernels = kernels[torch.arange(num_kernels) * len(kernels) // num_kernels]
        num_views = 2 if difference else 1
        self.num_features = num_views * num_dilations * num_biases * 2 * num_kernels
        self.register_buffer("kernels", kernels, persistent=False)
        self.register_buffer("biases", torch.zeros(num_views, num_dilations, num_biases, num_kernels))

    @torch.no_grad()
    def fit(self, x: Tensor, mask: Tensor | None) -> None:
        """Draw the biases from the responses to training series `(R, L)` at the points where their mask is true.

        Each is a little above a response: where a series stands still, many points have responses that differ by
        rounding alone, and are on one side of it whatever order sums are taken in.
        """
        generator = torch.Generator().manual_seed(self.seed)
        points = (torch.ones_like(x, dtype=torch.bool) if mask is None else mask).nonzero()
        if not len(points):
            return
        above = _ROUNDING * x[tuple(points.T)].abs().max()
        for v, view_RL in enumerate(self._views(x, mask)):
            for d, dilation in enumerate(self.dilations):
                chosen = torch.randint(len(points), (min(len(points), _BIAS_POINTS),), generator=generator)
                row, point = points[chosen].unbind(dim=1)
                responses = self._responses_at(view_RL, row, point, dilation)
                quantiles = (torch.rand(self.num_biases, generator=generator) + _golden(len(self.kernels))[:, None]) % 1
                for k, quantile in enumerate(quantiles):
                    self.biases[v, d, :, k] = torch.quantile(responses[:, k], quantile.to(responses)) + above

    @torch.no_grad()
    def forward(self, x: Tensor, mask: Tensor | None = None) -> PatchFeatures:
        """`(R, L)` and its mask to features of each patch.

        Computed in float32 at least, since biases are close to responses; a few series at a time, whose responses stay
        in a CPU's cache, or within half a gigabyte of a GPU's memory.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            num_rows, length = x.shape
            observed_R1L = None if mask is None else mask[:, None].to(x.dtype)
            count_R1N = self._window_sum(x.new_ones(1, 1, length) if observed_R1L is None else observed_R1L)
            values = x.new_empty(num_rows, count_R1N.shape[-1], self.num_features)
            step = max(1, (_CPU_POINTS if x.device.type == "cpu" else _GPU_POINTS) // length)
            kernels = self.kernels.to(x)
            num_kernels = len(kernels)
            views = self._views(x, mask)
            for rows in _at_once(num_rows, step):
                weight = (count_R1N if observed_R1L is None else count_R1N[rows]).clamp(min=1)
                column = 0
                for view, biases in zip(views, self.biases, strict=True):
                    for dilation, bias_per_kernel in zip(self.dilations, biases, strict=True):
                        responses = F.conv1d(view[rows, None], kernels, padding=4 * dilation, dilation=dilation)
                        for bias in bias_per_kernel:
                            above = (responses - bias[:, None]).relu_()
                            if observed_R1L is not None:
                                above *= observed_R1L[rows]
                            for pooled in (self._window_sum(above), self._window_sum(above.sign_())):
                                values[rows, :, column : column + num_kernels] = (pooled / weight).transpose(1, 2)
                                column += num_kernels
        return PatchFeatures(values, count_R1N[:, 0])

    def _views(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The series and, where asked, its first difference, each `(R, L)`."""
        views = [x]
        if self.difference:
            step = F.pad(x[..., 1:] - x[..., :-1], (1, 0))
            if mask is not None:
                step = step * (mask & F.pad(mask[..., :-1], (1, 0)))
            views.append(step)
        return views

    def _responses_at(self, series: Tensor, row: Tensor, point: Tensor, dilation: int) -> Tensor:
        """Responses of all kernels at chosen points: `(points, kernels)`."""
        offsets = (torch.arange(9, device=series.device) - 4) * dilation
        padded = F.pad(series, (4 * dilation, 4 * dilation))
        windows = padded[row[:, None], point[:, None] + offsets + 4 * dilation]
        return windows @ self.kernels[:, 0].T

    def _window_sum(self, x: Tensor) -> Tensor:
        """Sum over each patch: `(R, K, L)` to `(R, K, N)`; the last patch may be cut short, which saves padding it."""
        num_whole = num_patches(x.shape[-1], self.patch_length, self.stride) - 1
        last = x[..., num_whole * self.stride :].sum(dim=-1, keepdim=True)
        if num_whole == 0:
            return last
        whole = x.unfold(-1, self.patch_length, self.stride)[..., :num_whole, :]
        return torch.cat([whole.sum(dim=-1), last], dim=-1)


def _at_once(num_rows: int, step: int) -> list[slice]:
    """Rows whose responses are held at once: all in a graph, which has no loop over them."""
    if torch.compiler.is_compiling():
        return [slice(None)]
    return [slice(start, start + step) for start in range(0, num_rows, step)]


_ROUNDING = 1e-5
"""Times the largest value: more than rounding in float32 changes a response by."""

_BIAS_POINTS = 10_000
"""Training points whose responses give the quantiles that biases are drawn from."""

_CPU_POINTS = 8192
"""Time points whose responses are held at once on a CPU: 84 kernels, 4 bytes each."""
_GPU_POINTS = 2**20
"""The same on a GPU: 336 MiB."""


def _golden(count: int) -> Tensor:
    """Low-discrepancy numbers in [0, 1), as MiniRocket spreads its quantiles."""
    return (torch.arange(1, count + 1) * ((math.sqrt(5) + 1) / 2)) % 1
