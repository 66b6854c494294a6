"""Tokenizers: a series becomes `num_tokens` tokens of width D.

Shape letters: B batch, C channels, L time points, P patch length, N tokens, D model width, F features of one channel.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.errors import Problems, UserError
from krontime.models.layers.patches import num_patches, patch_mask, unfold_patches
from krontime.models.layers.pooling import masked_mean


class Tokens(NamedTuple):
    """What a tokenizer returns.

    Attributes:
        tokens: `(B, N, D)`, zero where `mask` is false.
        mask: `(B, N)` bool, false for tokens that hold no observed point; None when all hold some.
        pooled: `(B, P)` features pooled over the whole series, for the head; None where the tokenizer has none.
    """

    tokens: Tensor
    mask: Tensor | None
    pooled: Tensor | None = None


class Tokenizer(nn.Module):
    """Common part: patch geometry and which tokens count.

    Args:
        patch_length: points under one token.
        stride: points from the start of one token to the next; at most `patch_length`.

    Raises:
        UserError: if the two don't satisfy `1 <= stride <= patch_length`.
    """

    num_pooled: int = 0
    """Width of `Tokens.pooled`; 0 where there is none."""

    def __init__(self, *, patch_length: int, stride: int) -> None:
        super().__init__()
        if not 1 <= stride <= patch_length:
            raise UserError(
                f"tokenizer.stride={stride}, tokenizer.patch_length={patch_length}: "
                "expected 1 <= stride <= patch_length"
            )
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
        patch_length: int = 32,
        stride: int = 32,
        width: int = 32,
        kernel_size: int = 9,
        num_layers: int = 2,
    ) -> None:
        super().__init__(patch_length=patch_length, stride=stride)
        problems = Problems()
        if kernel_size < 1 or kernel_size % 2 == 0:
            problems.add("tokenizer.kernel_size", kernel_size, "an odd number of at least 1")
        for key, value in (("width", width), ("num_layers", num_layers)):
            if value < 1:
                problems.add(f"tokenizer.{key}", value, "at least 1")
        problems.raise_if_any()
        sizes = [num_channels] + [width] * num_layers
        self.convs = nn.ModuleList(
            nn.Conv1d(size_in, size_out, kernel_size, padding="same") for size_in, size_out in itertools.pairwise(sizes)
        )
        self.norm = nn.LayerNorm(2 * width)
        self.projection = nn.Linear(2 * width, d_model)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tokens:
        """`(B, C, L)` and its mask to tokens `(B, N, D)`."""
        observed_B1L = torch.ones_like(x[:, :1]) if mask is None else mask.any(dim=1, keepdim=True).to(x.dtype)
        for conv in self.convs:
            x = F.gelu(conv(x)) * observed_B1L
        count_B1N = self._patches(observed_B1L).sum(dim=-1).clamp(min=1)
        patches_BWNP = self._patches(x)
        pooled_BWN = torch.cat([patches_BWNP.sum(dim=-1) / count_B1N, patches_BWNP.amax(dim=-1)], dim=1)
        tokens_BND = self.projection(self.norm(pooled_BWN.transpose(1, 2)))
        mask_BN = self._token_mask(mask)
        return Tokens(tokens_BND if mask_BN is None else tokens_BND * mask_BN[..., None], mask_BN)


def minirocket_kernels() -> Tensor:
    """The 84 fixed kernels of MiniRocket (Dempster, Schmidt, Webb 2021, arXiv 2012.08791).

    Returns:
        `(84, 1, 9)` float32: weight 2 at three of the nine taps, -1 at the others.
    """
    kernels = torch.full((84, 1, 9), -1.0)
    for row, taps in enumerate(itertools.combinations(range(9), 3)):
        kernels[row, 0, list(taps)] = 2.0
    return kernels


class RocketPatch(Tokenizer):
    """Fixed dilated kernels pooled inside each token, then one learned linear map; and pooled over all for the head.

    Each channel is convolved with MiniRocket's 84 kernels at dilations 1, 2, 4, ...; a response is compared with a bias
    drawn from the quantiles of the responses to training series. Two poolings of it are kept in each token: the
    proportion of points above the bias (MiniRocket's), and the mean of what lies above (after MultiRocket, Tan et al.
    2022, arXiv 2102.00457). Features are standardised by training statistics. Only the map to D is learned.

    Args:
        num_dilations: dilations 1, 2, ..., `2 ** (num_dilations - 1)`.
        num_biases: biases for each kernel and dilation.
        difference: whether the first difference of the series is convolved beside the series.
        seed: of the sampling of biases.
    """

    kernels: Tensor
    biases: Tensor
    token_mean: Tensor
    token_scale: Tensor
    pooled_mean: Tensor
    pooled_scale: Tensor

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
        seed: int = 0,
    ) -> None:
        super().__init__(patch_length=patch_length, stride=stride)
        problems = Problems()
        for key, value in (("num_dilations", num_dilations), ("num_biases", num_biases)):
            if value < 1:
                problems.add(f"tokenizer.{key}", value, "at least 1")
        problems.raise_if_any()
        self.dilations = [2**i for i in range(num_dilations)]
        self.num_biases = num_biases
        self.difference = difference
        self.seed = seed
        kernels = minirocket_kernels()
        num_views = 2 if difference else 1
        self.num_features = num_channels * num_views * num_dilations * num_biases * 2 * len(kernels)
        self.num_pooled = self.num_features
        self.register_buffer("kernels", kernels, persistent=False)
        self.register_buffer("biases", torch.zeros(num_views, num_dilations, num_biases, len(kernels)))
        for name in ("token", "pooled"):
            self.register_buffer(f"{name}_mean", torch.zeros(self.num_features))
            self.register_buffer(f"{name}_scale", torch.ones(self.num_features))
        self.projection = nn.Linear(self.num_features, d_model)

    @torch.no_grad()
    def fit(self, x: Tensor, mask: Tensor | None) -> None:
        """Draw the biases from, and take the feature statistics over, the training series given."""
        generator = torch.Generator().manual_seed(self.seed)
        observed_BCL = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        points = observed_BCL.flatten(0, 1).nonzero()
        if not len(points):
            return
        for v, view_B1L in enumerate(self._views(x, mask)):
            for d, dilation in enumerate(self.dilations):
                chosen = torch.randint(len(points), (min(len(points), _BIAS_POINTS),), generator=generator)
                row, point = points[chosen].unbind(dim=1)
                responses = self._responses_at(view_B1L[:, 0], row, point, dilation)
                quantiles = (torch.rand(self.num_biases, generator=generator) + _golden(len(self.kernels))[:, None]) % 1
                for k, quantile in enumerate(quantiles):
                    self.biases[v, d, :, k] = torch.quantile(responses[:, k], quantile.to(responses))
        features_BNF, mask_BN = self._features(x, mask)
        valid = features_BNF.flatten(0, 1) if mask_BN is None else features_BNF[mask_BN]
        pooled_BF = masked_mean(features_BNF, mask_BN)
        for name, values in (("token", valid), ("pooled", pooled_BF)):
            getattr(self, f"{name}_mean").copy_(values.mean(dim=0))
            scale = values.std(dim=0, unbiased=False)
            getattr(self, f"{name}_scale").copy_(torch.where(scale > 1e-6, scale, torch.ones_like(scale)))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tokens:
        """`(B, C, L)` and its mask to tokens `(B, N, D)` and pooled features `(B, P)`."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):  # biases are close to responses
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            features_BNF, mask_BN = self._features(x, mask)
            pooled_BF = (masked_mean(features_BNF, mask_BN) - self.pooled_mean) / self.pooled_scale
            features_BNF = (features_BNF - self.token_mean) / self.token_scale
        tokens_BND = self.projection(features_BNF)
        return Tokens(tokens_BND if mask_BN is None else tokens_BND * mask_BN[..., None], mask_BN, pooled_BF)

    def _views(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The series and, where asked, its first difference, each `(B * C, 1, L)`."""
        views = [x]
        if self.difference:
            step = F.pad(x[..., 1:] - x[..., :-1], (1, 0))
            if mask is not None:
                step = step * (mask & F.pad(mask[..., :-1], (1, 0)))
            views.append(step)
        return [view.reshape(-1, 1, view.shape[-1]) for view in views]

    def _responses_at(self, series: Tensor, row: Tensor, point: Tensor, dilation: int) -> Tensor:
        """Responses of all kernels at chosen points: `(points, 84)`."""
        offsets = (torch.arange(9, device=series.device) - 4) * dilation
        padded = F.pad(series, (4 * dilation, 4 * dilation))
        windows = padded[row[:, None], point[:, None] + offsets + 4 * dilation]
        return windows @ self.kernels[:, 0].T

    def _features(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Raw features of each token `(B, N, C * F)`, and which tokens count.

        Responses are pooled a few series at a time: on a CPU they then stay in its cache.
        """
        batch_size, num_channels, length = x.shape
        num_rows, num_kernels = batch_size * num_channels, len(self.kernels)
        observed = None if mask is None else mask.reshape(-1, 1, length).to(x.dtype)
        count = self._window_sum(x.new_ones(1, 1, length) if observed is None else observed).clamp(min=1)
        features = x.new_empty(num_rows, count.shape[-1], self.num_features // num_channels)
        step = max(1, _CPU_POINTS // length) if x.device.type == "cpu" else num_rows
        kernels = self.kernels.to(x)
        views = self._views(x, mask)
        for rows in (slice(start, start + step) for start in range(0, num_rows, step)):
            weight = count if observed is None else count[rows]
            column = 0
            for view, biases in zip(views, self.biases, strict=True):
                for dilation, bias_per_kernel in zip(self.dilations, biases, strict=True):
                    responses = F.conv1d(view[rows], kernels, padding=4 * dilation, dilation=dilation)
                    for bias in bias_per_kernel:
                        above = (responses - bias[:, None]).relu_()
                        if observed is not None:
                            above *= observed[rows]
                        for pooled in (self._window_sum(above), self._window_sum(above.sign_())):
                            features[rows, :, column : column + num_kernels] = (pooled / weight).transpose(1, 2)
                            column += num_kernels
        features = features.reshape(batch_size, num_channels, *features.shape[1:]).transpose(1, 2).flatten(2)
        return features, self._token_mask(mask)

    def _window_sum(self, x: Tensor) -> Tensor:
        """Sum over each patch: `(R, K, L)` to `(R, K, N)`; the last patch may be cut short, which saves padding it."""
        num_whole = num_patches(x.shape[-1], self.patch_length, self.stride) - 1
        last = x[..., num_whole * self.stride :].sum(dim=-1, keepdim=True)
        if num_whole == 0:
            return last
        whole = x.unfold(-1, self.patch_length, self.stride)[..., :num_whole, :]
        return torch.cat([whole.sum(dim=-1), last], dim=-1)


_BIAS_POINTS = 10_000
"""Training points whose responses give the quantiles that biases are drawn from."""

_CPU_POINTS = 8192
"""Time points whose responses are held at once on a CPU: 84 kernels, 4 bytes each."""


def _golden(count: int) -> Tensor:
    """Low-discrepancy numbers in [0, 1), as MiniRocket spreads its quantiles."""
    return (torch.arange(1, count + 1) * ((math.sqrt(5) + 1) / 2)) % 1
