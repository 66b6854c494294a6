"""Tokenizers: a series becomes `num_tokens` tokens of width D.

Shape letters: B batch, C channels, L time points, P patch length, N tokens, D model width, F features of one channel.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.errors import Problems
from krontime.models.layers.kernels import KernelFeatures, mean_and_scale
from krontime.models.layers.patches import num_patches, patch_mask, unfold_patches


class Tokens(NamedTuple):
    """What a tokenizer returns.

    Attributes:
        tokens: `(B, N, D)`, zero where `mask` is false.
        mask: `(B, N)` bool, false for tokens that hold no observed point; None when all hold some.
    """

    tokens: Tensor
    mask: Tensor | None


class Tokenizer(nn.Module):
    """Common part: patch geometry and which tokens count.

    Args:
        patch_length: points under one token.
        stride: points from the start of one token to the next; at most `patch_length`.

    Raises:
        ValueError: if the two don't satisfy `1 <= stride <= patch_length`.
    """

    def __init__(self, *, patch_length: int, stride: int) -> None:
        super().__init__()
        if patch_length < 1:
            raise ValueError(f"patch_length={patch_length}: expected at least 1")
        if not 1 <= stride <= patch_length:
            raise ValueError(f"stride={stride}: expected 1 to patch_length={patch_length}")
        self.patch_length = patch_length
        self.stride = stride

    def num_tokens(self, length: int) -> int:
        """Tokens of a series of `length` points; a series shorter than a patch has one."""
        return num_patches(length, self.patch_length, self.stride)

    def fit(self, x: Tensor, mask: Tensor | None) -> None:
        """Set what depends on training data, from a sample of training series; most tokenizers have nothing to set.

        Args:
            x: `(B, C, L)` normalised training series.
            mask: `(B, C, L)` bool or None.
        """

    def _patches(self, x: Tensor) -> Tensor:
        """`(B, C, L)` to `(B, C, N, P)`, the last patch filled with zeros."""
        return unfold_patches(x, self.patch_length, self.stride)

    def _token_mask(self, mask: Tensor | None) -> Tensor | None:
        """`(B, C, L)` bool to `(B, N)`: which tokens count."""
        return patch_mask(mask, self.patch_length, self.stride)


class LinearPatch(Tokenizer):
    """One linear map from the points of a patch to a token, as in PatchTST (Nie et al. 2023, arXiv 2211.14730)."""

    def __init__(self, *, num_channels: int, d_model: int, patch_length: int = 16, stride: int = 8) -> None:
        super().__init__(patch_length=patch_length, stride=stride)
        self.projection = nn.Linear(num_channels * patch_length, d_model)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tokens:
        """`(B, C, L)` and its mask to tokens `(B, N, D)`."""
        patches_BNCP = self._patches(x).transpose(1, 2)
        tokens_BND = self.projection(patches_BNCP.flatten(2))
        mask_BN = self._token_mask(mask)
        return Tokens(tokens_BND if mask_BN is None else tokens_BND * mask_BN[..., None], mask_BN)


class ConvPatch(Tokenizer):
    """Convolutions at full resolution, then the mean and the maximum within each patch, then one linear map.

    Every layer sees zeros at unobserved points, so padding cannot leak in.

    Args:
        width: channels of the convolutions.
        kernel_size: points under one kernel; odd.
        num_layers: convolutions in a row, each followed by GELU.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        d_model: int,
        patch_length: int = 64,
        stride: int = 64,
        width: int = 16,
        kernel_size: int = 9,
        num_layers: int = 2,
    ) -> None:
        super().__init__(patch_length=patch_length, stride=stride)
        problems = Problems()
        if kernel_size < 1 or kernel_size % 2 == 0:
            problems.add("kernel_size", kernel_size, "an odd number of at least 1")
        for key, value in (("width", width), ("num_layers", num_layers)):
            if value < 1:
                problems.add(key, value, "at least 1")
        problems.raise_value_error()
        sizes = [num_channels] + [width] * num_layers
        self.convs = nn.ModuleList(
            nn.Conv1d(size_in, size_out, kernel_size, padding="same") for size_in, size_out in itertools.pairwise(sizes)
        )
        self.norm = nn.LayerNorm(2 * width)
        self.projection = nn.Linear(2 * width, d_model)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tokens:
        """`(B, C, L)` and its mask to tokens `(B, N, D)`."""
        observed_B1L = None if mask is None else mask.any(dim=1, keepdim=True).to(x.dtype)
        count_B1N = self._patches(x.new_ones(1, 1, x.shape[-1]) if observed_B1L is None else observed_B1L).sum(dim=-1)
        for conv in self.convs:
            x = F.gelu(conv(x))
            if observed_B1L is not None:
                x = x * observed_B1L.to(x.dtype)
        patches_BWNP = self._patches(x)
        pooled_BWN = torch.cat(
            [patches_BWNP.sum(dim=-1, dtype=count_B1N.dtype) / count_B1N.clamp(min=1), patches_BWNP.amax(dim=-1)], dim=1
        )
        tokens_BND = self.projection(self.norm(pooled_BWN.transpose(1, 2)))
        mask_BN = self._token_mask(mask)
        return Tokens(tokens_BND if mask_BN is None else tokens_BND * mask_BN[..., None], mask_BN)


class RocketPatch(Tokenizer):
    """Fixed dilated kernels pooled inside each token, then one learned linear map.

    Each channel is convolved with MiniRocket's 84 kernels, see `KernelFeatures`. Features are standardised by training
    statistics. Only the map to D is learned.

    Args:
        num_dilations: dilations 1, 2, ..., `2 ** (num_dilations - 1)`.
        num_biases: biases for each kernel and dilation.
        difference: whether the first difference of the series is convolved beside the series.
        seed: of the sampling of biases; None for that of torch's generator, which a run seeds with its own.
    """

    token_mean: Tensor
    token_scale: Tensor

    def __init__(
        self,
        *,
        num_channels: int,
        d_model: int,
        patch_length: int = 64,
        stride: int = 64,
        num_dilations: int = 6,
        num_biases: int = 1,
        difference: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(patch_length=patch_length, stride=stride)
        self.features = KernelFeatures(
            patch_length=patch_length,
            stride=stride,
            num_dilations=num_dilations,
            num_biases=num_biases,
            difference=difference,
            seed=torch.initial_seed() if seed is None else seed,
        )
        num_features = num_channels * self.features.num_features
        self.register_buffer("token_mean", torch.zeros(num_features))
        self.register_buffer("token_scale", torch.ones(num_features))
        self.projection = nn.Linear(num_features, d_model)

    @torch.no_grad()
    def fit(self, x: Tensor, mask: Tensor | None) -> None:
        """Draw the biases from, and take the feature statistics over, the training series given."""
        if mask is not None and not mask.any():
            return
        self.features.fit(x.flatten(0, 1), None if mask is None else mask.flatten(0, 1))
        features_BNF, mask_BN = self._features(x, mask)
        valid = features_BNF.flatten(0, 1) if mask_BN is None else features_BNF[mask_BN]
        mean, scale = mean_and_scale(valid)
        self.token_mean.copy_(mean)
        self.token_scale.copy_(scale)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tokens:
        """`(B, C, L)` and its mask to tokens `(B, N, D)`."""
        features_BNF, mask_BN = self._features(x, mask)
        tokens_BND = self.projection((features_BNF - self.token_mean) / self.token_scale)
        return Tokens(tokens_BND if mask_BN is None else tokens_BND * mask_BN[..., None], mask_BN)

    def _features(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Raw features of each token `(B, N, C * F)`, and which tokens count."""
        values_RNF, _ = self.features(x.flatten(0, 1), None if mask is None else mask.flatten(0, 1))
        features_BNF = values_RNF.unflatten(0, x.shape[:2]).transpose(1, 2).flatten(2)
        return features_BNF, self._token_mask(mask)
