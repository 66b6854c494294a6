"""The network of H-InceptionTime (Ismail-Fawaz, Devanne, Weber, Forestier 2022), without the ensemble.

It is that of InceptionTime (Ismail Fawaz et al. 2020, arXiv 1909.04939) with hand-crafted filters beside the first
module's.

Shape letters: B batch, C channels, L time points, W channels of a module, H hand-crafted filters, K points of a kernel.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.errors import Problems
from krontime.models.layers.norm import MaskedBatchNorm
from krontime.models.layers.options import check_options
from krontime.models.layers.pooling import masked_mean
from krontime.models.network import SeriesNetwork

TREND_LENGTHS = (2, 4, 8, 16, 32, 64)
PEAK_LENGTHS = (4, 8, 16, 32, 64)
RESIDUAL_EVERY = 3
"""Modules that a shortcut passes by."""


def hand_crafted_filters() -> Tensor:
    """`(H, K)`: detectors of rising and falling steps and of peaks, placed for a convolution that keeps the length."""
    filters = [sign * (1 - 2 * (torch.arange(size) % 2)).float() for sign in (-1, 1) for size in TREND_LENGTHS]
    for size in PEAK_LENGTHS:
        rise = torch.linspace(0, 1, size // 4 + 1)[1:].square()
        hill = torch.cat([rise, rise.flip(0)])
        filters.append(torch.cat([-hill, 2 * hill, -hill]))
    longest = max(len(taps) for taps in filters)
    rows = []
    for taps in filters:
        before = _left(longest) - _left(len(taps))
        rows.append(F.pad(taps, (before, longest - before - len(taps))))
    return torch.stack(rows)


class SameConv(nn.Conv1d):
    """Convolution without bias whose output is as long as its input, the extra zero of an even kernel at the end."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias=False)
        nn.init.xavier_uniform_(self.weight)  # as in the authors' code

    def forward(self, x: Tensor) -> Tensor:
        """`(B, W_in, L)` to `(B, W_out, L)`."""
        return super().forward(_padded(x, self.kernel_size[0]))


class ObservedBatchNorm(MaskedBatchNorm):
    """`MaskedBatchNorm` of `(B, W, L)`."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, W, L)` and which points enter the statistics in training `(B, L)` to `(B, W, L)`."""
        if self.training and (mask is not None or len(x) * x.shape[-1] == 1):
            return super().forward(x.transpose(1, 2), mask).transpose(1, 2)
        return nn.BatchNorm1d.forward(self, x)


class InceptionModule(nn.Module):
    """Convolutions of three lengths behind a bottleneck, a pooled one beside them, batch norm and ReLU.

    Args:
        in_channels: W of the input.
        num_filters: filters of each of the four branches.
        bottleneck: channels that the three convolutions read; a single input channel has none.
        kernel_sizes: points of the three convolutions.
        hand_crafted: whether the fixed filters stand beside the branches.
    """

    filters: Tensor | None

    def __init__(
        self, in_channels: int, *, num_filters: int, bottleneck: int, kernel_sizes: list[int], hand_crafted: bool
    ) -> None:
        super().__init__()
        narrow = in_channels > 1
        self.bottleneck = SameConv(in_channels, bottleneck, 1) if narrow else nn.Identity()
        self.branches = nn.ModuleList(
            SameConv(bottleneck if narrow else in_channels, num_filters, size) for size in kernel_sizes
        )
        self.pooled = SameConv(in_channels, num_filters, 1)
        self.register_buffer("filters", hand_crafted_filters()[:, None] if hand_crafted else None, persistent=False)
        self.out_channels = (len(kernel_sizes) + 1) * num_filters + (0 if self.filters is None else len(self.filters))
        self.norm = ObservedBatchNorm(self.out_channels)

    def forward(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """`(B, W_in, L)` and which points count `(B, L)` to `(B, W_out, L)`."""
        peaks = x
        if observed is not None:
            missing = ~observed[:, None]
            x = x.masked_fill(missing, 0.0)
            peaks = x.masked_fill(missing, -math.inf)
        peaks = F.max_pool1d(peaks, 3, stride=1, padding=1)
        if observed is not None:
            peaks = peaks.masked_fill(missing, 0.0)
        narrow = self.bottleneck(x)
        parts = [*(branch(narrow) for branch in self.branches), self.pooled(peaks)]
        if self.filters is not None:  # the same for each channel, so that their sum is what is filtered
            size = self.filters.shape[-1]
            parts.append(F.conv1d(_padded(x.sum(dim=1, keepdim=True), size), self.filters).relu())
        return self.norm(torch.cat(parts, dim=1), observed).relu()


class Shortcut(nn.Module):
    """A linear map of an earlier input and its batch norm, added before a ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.map = SameConv(in_channels, out_channels, 1)
        self.norm = ObservedBatchNorm(out_channels)

    def forward(self, earlier: Tensor, x: Tensor, observed: Tensor | None) -> Tensor:
        """`(B, W_earlier, L)` and `(B, W, L)` to `(B, W, L)`."""
        return (self.norm(self.map(earlier), observed) + x).relu()


class Inception(SeriesNetwork):
    """Inception modules with a shortcut past each three, the mean over observed times, and a linear layer.

    The layers, their order, padding and number of parameters are those of the authors' code; batch norm has PyTorch's
    momentum and epsilon, since Keras' momentum takes hundreds of steps to settle. Points at which no channel is
    observed are zeros for every convolution and no candidates of the maximum, and enter neither batch statistics nor
    the mean; a series' logits depend on other series in training alone, through batch norm.

    Args:
        num_channels: C.
        length: longest series, in time points; any will do.
        num_classes: number of logits.
        num_filters: filters of each of a module's four branches.
        bottleneck: channels that a module's long convolutions read.
        num_modules: modules; each third has a shortcut.
        kernel_size: points of the longest convolution; the others have a half and a quarter.
        hand_crafted: whether the first module has 17 fixed filters beside those that are learned.
        head_dropout: fraction of features dropped before the last linear layer; none as published.

    Raises:
        ValueError: names every option that cannot work.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        length: int,
        num_classes: int,
        num_filters: int = 32,
        bottleneck: int = 32,
        num_modules: int = 6,
        kernel_size: int = 40,
        hand_crafted: bool = True,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        problems = Problems()
        check_options(
            problems,
            sizes={"num_filters": num_filters, "bottleneck": bottleneck, "num_modules": num_modules},
            fractions={"head_dropout": head_dropout},
        )
        if kernel_size < 4:
            problems.add("kernel_size", kernel_size, "at least 4")
        problems.raise_value_error()

        self.inception = nn.ModuleList()
        self.shortcuts = nn.ModuleList()
        width = earlier = num_channels
        for number in range(num_modules):
            module = InceptionModule(
                width,
                num_filters=num_filters,
                bottleneck=bottleneck,
                kernel_sizes=[kernel_size, kernel_size // 2, kernel_size // 4],
                hand_crafted=hand_crafted and number == 0,
            )
            self.inception.append(module)
            width = module.out_channels
            if (number + 1) % RESIDUAL_EVERY == 0:
                self.shortcuts.append(Shortcut(earlier, width))
                earlier = width
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            x: `(B, C, L)`, 0 where not observed.
            mask: `(B, C, L)` bool, true where observed; None when all is.

        Returns:
            Logits `(B, num_classes)`.
        """
        observed_BL = None if mask is None else mask.any(dim=1)
        earlier = x
        for number, module in enumerate(self.inception):
            x = module(x, observed_BL)
            if (number + 1) % RESIDUAL_EVERY == 0:
                x = earlier = self.shortcuts[number // RESIDUAL_EVERY](earlier, x, observed_BL)
        return self.head(self.head_dropout(masked_mean(x.transpose(1, 2), observed_BL)))


def _left(kernel_size: int) -> int:
    return (kernel_size - 1) // 2


def _padded(x: Tensor, kernel_size: int) -> Tensor:
    left = _left(kernel_size)
    return F.pad(x, (left, kernel_size - 1 - left)) if kernel_size > 1 else x
