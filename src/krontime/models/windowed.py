"""Long series cut into windows inside the network, so that labels and scores stay those of whole series."""

import torch
from torch import Tensor

from krontime.models.layers.patches import patch_mask, unfold_patches
from krontime.models.layers.pooling import masked_mean
from krontime.models.network import SeriesNetwork


class Windowed(SeriesNetwork):
    """A network applied to each window of a series; the logits of a series are the mean over its windows.

    Args:
        network: maps `(B * W, C, length)` and a mask to logits.
        length: points of a window.
        stride: points from the start of one window to the next; at most `length`.

    Raises:
        ValueError: if `1 <= stride <= length` does not hold.
    """

    def __init__(self, network: SeriesNetwork, *, length: int, stride: int) -> None:
        super().__init__()
        if not 1 <= stride <= length:
            raise ValueError(f"stride={stride}: expected 1 to length={length}")
        self.network = network
        self.length = length
        self.stride = stride

    def fit_tokens(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Pass the windows of training series on to a network whose tokenizer is fitted."""
        windows, window_mask, counts_BW = self._cut(x, mask)
        chosen = slice(None) if counts_BW is None else counts_BW.flatten()
        self.network.fit_tokens(windows[chosen], None if window_mask is None else window_mask[chosen])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, C, L)` and its mask to logits `(B, num_classes)`."""
        windows, window_mask, counts_BW = self._cut(x, mask)
        logits_BWK = self.network(windows, window_mask).unflatten(0, (x.shape[0], -1))
        return masked_mean(logits_BWK, counts_BW)

    def _cut(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Windows `(B * W, C, length)`, their mask, and which of them count `(B, W)`."""
        windows = self._flat(x)
        if mask is None:
            if windows.shape[0] * self.stride == x.shape[0] * (x.shape[-1] - self.length + self.stride):
                return windows, None, None
            mask = torch.ones_like(x, dtype=torch.bool)
        return windows, self._flat(mask), patch_mask(mask, self.length, self.stride)

    def _flat(self, x: Tensor) -> Tensor:
        return unfold_patches(x, self.length, self.stride).transpose(1, 2).flatten(0, 1)
