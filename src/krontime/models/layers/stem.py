"""A residual convolutional stem that sees several scales, and makes tokens of what it sees.

Shape letters: B batch, C channels, L time points, W channels of the stem, S points from one of its positions to the
next, T positions (ceil(L / S)), N tokens, P positions under a token, D model width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.errors import Problems
from krontime.models.layers.patches import unfold_patches
from krontime.models.layers.tokenizers import Tokenizer, Tokens


class InstanceNorm(nn.Module):
    """Each channel of each series at mean 0 and variance 1 over the positions that count, then a weight and a bias.

    A series' own statistics, in training and later: no other series of the batch enters, and a strange one does no
    harm to the rest. `eps` is large enough that rounding stays small where a channel hardly varies.
    """

    def __init__(self, width: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Normalise.

        Args:
            x: `(B, W, T)`.
            mask: `(B, 1, T)` bool; None where all positions count.

        Returns:
            `(B, W, T)`, zero where `mask` is false.
        """
        if mask is None:
            # Not that of `functional`, which refuses a batch of one series with one position.
            return torch.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        count_B11 = mask.sum(dim=-1, keepdim=True).clamp(min=1)
        centred = (x - (x * mask).sum(dim=-1, keepdim=True) / count_B11) * mask
        variance_BW1 = centred.square().sum(dim=-1, keepdim=True) / count_B11
        scale_BW1 = (variance_BW1 + self.eps).rsqrt() * self.weight[:, None]
        return (centred * scale_BW1 + self.bias[:, None]) * mask


class Branches(nn.Module):
    """Convolutions side by side, each of its own reach, joined, normalised and rectified.

    Args:
        in_channels: channels that come in.
        out_channels: of all branches together; a multiple of their number.
        reaches: `(kernel size, dilation)` of each; odd sizes.
        stride: of all.
    """

    def __init__(
        self, in_channels: int, out_channels: int, reaches: Sequence[tuple[int, int]], *, stride: int = 1
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(
                in_channels,
                out_channels // len(reaches),
                size,
                stride=stride,
                dilation=dilation,
                padding=size // 2 * dilation,
                bias=False,
            )
            for size, dilation in reaches
        )
        self.norm = InstanceNorm(out_channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, C, L)`, zero where it does not count, and the mask `(B, 1, T)` of what comes out, to `(B, W, T)`."""
        return F.relu(self.norm(torch.cat([conv(x) for conv in self.convs], dim=1), mask))


class ResidualBlock(nn.Module):
    """Branches and a product that mixes their channels, added to what came in."""

    def __init__(self, width: int, reaches: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.branches = Branches(width, width, reaches)
        self.mix = nn.Conv1d(width, width, 1, bias=False)
        self.norm = InstanceNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, W, T)` and its mask `(B, 1, T)` to `(B, W, T)`."""
        return F.relu(x + self.norm(self.mix(self.branches(x, mask)), mask))


class ResidualStem(Tokenizer):
    """Long and short kernels on the series, residual blocks of convolutions, mean and maximum within each token.

    It sees what InceptionTime (Fawaz et al. 2020, arXiv 1909.04939) and a residual network (Wang et al. 2017, arXiv
    1611.06455) see, at a fraction of their cost: long kernels read the few channels of the series alone, with a stride,
    and later convolutions have their reach from dilation.

    Positions without an observed point are zero in front of every convolution and count in no norm, so that padding
    cannot leak in.

    Args:
        num_channels: C.
        d_model: D.
        patch_length: points under one token, a multiple of `position_length`; tokens don't overlap.
        position_length: S.
        width: W, a multiple of the number of kernels.
        kernel_sizes: points under each of the kernels that read the series, odd.
        num_blocks: residual blocks.

    Raises:
        ValueError: with every option that cannot work.
    """

    REACHES = ((9, 1), (9, 4))
    """Kernel size and dilation of the branches of a block."""

    def __init__(
        self,
        *,
        num_channels: int,
        d_model: int,
        patch_length: int = 16,
        position_length: int = 4,
        width: int = 48,
        kernel_sizes: Sequence[int] = (9, 19, 39),
        num_blocks: int = 2,
    ) -> None:
        super().__init__(patch_length=patch_length, stride=patch_length)
        problems = Problems()
        if position_length < 1 or patch_length % position_length:
            problems.add("position_length", position_length, f"a divisor of patch_length={patch_length}")
        if not kernel_sizes or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            problems.add("kernel_sizes", list(kernel_sizes), "odd numbers of at least 1")
        elif width < 1 or width % len(kernel_sizes) or width % len(self.REACHES):
            problems.add("width", width, f"a multiple of {len(self.REACHES)} and of the {len(kernel_sizes)} kernels")
        if num_blocks < 0:
            problems.add("num_blocks", num_blocks, "at least 0")
        problems.raise_value_error()
        self.position_length = position_length
        self.read = Branches(num_channels, width, [(size, 1) for size in kernel_sizes], stride=position_length)
        self.blocks = nn.ModuleList(ResidualBlock(width, self.REACHES) for _ in range(num_blocks))
        self.projection = nn.Linear(2 * width, d_model)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tokens:
        """`(B, C, L)` and its mask to tokens `(B, N, D)`."""
        mask_B1T = None if mask is None else self._positions(mask.any(dim=1, keepdim=True)).any(dim=-1)
        x_BWT = self.read(x, mask_B1T)
        for block in self.blocks:
            x_BWT = block(x_BWT, mask_B1T)
        tokens_BND = self.projection(self._pooled(x_BWT, mask_B1T))
        mask_BN = self._token_mask(mask)
        return Tokens(tokens_BND if mask_BN is None else tokens_BND * mask_BN[..., None], mask_BN)

    def _positions(self, x: Tensor) -> Tensor:
        """`(B, 1, L)` to `(B, 1, T, S)`."""
        return unfold_patches(x, self.position_length, self.position_length)

    def _pooled(self, x_BWT: Tensor, mask_B1T: Tensor | None) -> Tensor:
        """Mean and maximum over the positions of a token that count: `(B, N, 2 * W)`.

        What is rectified is nowhere less than the zeros of positions that don't count.
        """
        size = self.patch_length // self.position_length
        count = x_BWT.new_ones(1, 1, x_BWT.shape[-1]) if mask_B1T is None else mask_B1T.to(x_BWT.dtype)
        count_BN1 = unfold_patches(count, size, size).sum(dim=-1).mT.clamp(min=1)
        x_BTW = F.pad(x_BWT.mT, (0, 0, 0, -x_BWT.shape[-1] % size))
        x_BNPW = x_BTW.unflatten(1, (-1, size))
        return torch.cat([x_BNPW.sum(dim=2) / count_BN1, x_BNPW.amax(dim=2)], dim=-1)
