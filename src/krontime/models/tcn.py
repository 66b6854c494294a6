"""Temporal convolutional network (Bai, Kolter, Koltun 2018, arXiv 1803.01271) for classification.

Shape letters: B batch, C channels, L time points, W width (channels of the hidden layers), K kernel size, d dilation.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from krontime.errors import Problems
from krontime.models.layers.options import check_options
from krontime.models.network import SeriesNetwork


class CausalConv(nn.Conv1d):
    """Dilated convolution whose output at a time depends on inputs up to that time; L stays."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation)
        self.past = (kernel_size - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        """`(B, W_in, L)` to `(B, W_out, L)`."""
        length, dilation = x.shape[-1], self.dilation[0]
        if dilation == 1:
            return self._conv_forward(F.pad(x, (self.past, 0)), self.weight, self.bias)
        # Time t = q * d + r as an image of rows q and columns r: the dilated taps become adjacent rows, and a plain
        # convolution down the columns takes down to 0.75 of the time that a dilated one does (docs/performance.md).
        folded = F.pad(x, (self.past, -length % dilation)).unflatten(-1, (-1, dilation))
        return F.conv2d(folded, self.weight[..., None], self.bias).flatten(2)[..., :length]


class ResidualBlock(nn.Module):
    """Two causal convolutions of one dilation, weight-normalised, each with ReLU and dropout; added to the input."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = weight_norm(CausalConv(in_channels, out_channels, kernel_size=kernel_size, dilation=dilation))
        self.conv2 = weight_norm(CausalConv(out_channels, out_channels, kernel_size=kernel_size, dilation=dilation))
        self.dropout = nn.Dropout1d(dropout)
        self.downsample = nn.Conv1d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, W_in, L)` to `(B, W_out, L)`."""
        hidden = self.dropout(self.conv1(x).relu())
        hidden = self.dropout(self.conv2(hidden).relu())
        return (hidden + self.downsample(x)).relu()


class TCN(SeriesNetwork):
    """Causal dilated residual blocks with dilations 1, 2, 4, ..., the mean over observed times, and a linear layer.

    As published, with two choices: dropout zeroes whole hidden channels, as the paper says (the authors' code drops
    single values); the last level is averaged over the times at which any channel is observed, so that series of any
    length and with missing points are classified alike (the authors read the last time). Because every layer is
    causal, nothing that comes after a series' end reaches an earlier time; missing values are zeros in the input.

    Args:
        num_channels: C.
        length: longest series, in time points.
        num_classes: number of logits.
        channels: W, of every level.
        num_levels: residual blocks; None for the fewest whose receptive field covers `length`.
        kernel_size: K, at least 2.
        dropout: fraction of hidden channels dropped after each convolution.

    Raises:
        ValueError: names every option that cannot work.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        length: int,
        num_classes: int,
        channels: int = 58,
        num_levels: int | None = None,
        kernel_size: int = 5,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        problems = Problems()
        check_options(problems, sizes={"channels": channels}, fractions={"dropout": dropout})
        if kernel_size < 2:
            problems.add("kernel_size", kernel_size, "at least 2")
        if num_levels is not None and num_levels < 1:
            problems.add("num_levels", num_levels, "at least 1, or null to cover the longest series")
        problems.raise_value_error()

        if num_levels is None:
            num_levels = 1
            while _receptive_field(kernel_size, num_levels) < length:
                num_levels += 1
        self.receptive_field = _receptive_field(kernel_size, num_levels)
        """Time points that one output of the last level depends on."""
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(
                    num_channels if level == 0 else channels,
                    channels,
                    kernel_size=kernel_size,
                    dilation=2**level,
                    dropout=dropout,
                )
                for level in range(num_levels)
            )
        )
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            x: `(B, C, L)`, 0 where not observed; L may be less than the `length` the network was built for.
            mask: `(B, C, L)` bool, true where observed; None when all is.

        Returns:
            Logits `(B, num_classes)`.
        """
        hidden_BWL = self.blocks(x)
        if mask is None:
            return self.head(hidden_BWL.mean(dim=-1))
        observed_BL = mask.any(dim=1)
        sum_BW = (hidden_BWL @ observed_BL[..., None].to(hidden_BWL.dtype)).squeeze(-1)
        return self.head(sum_BW / observed_BL.sum(dim=1, keepdim=True).clamp(min=1))


def _receptive_field(kernel_size: int, num_levels: int) -> int:
    """Two convolutions a level, of dilations 1, 2, 4, ...: `1 + 2 (K - 1) (2^levels - 1)`."""
    return 1 + 2 * (kernel_size - 1) * (2**num_levels - 1)
