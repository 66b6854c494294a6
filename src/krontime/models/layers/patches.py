"""Cutting a series into patches that may overlap: token patches and windows share this geometry.

Patch t covers the points `t * stride : t * stride + length`. A series has as many patches as it takes to cover its last
observed point, so that padding it further adds none that count.

Shape letters: B batch, C channels, L time points, N patches, P patch length.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def num_patches(length: int, patch_length: int, stride: int) -> int:
    """Patches of a series of `length` points; a series shorter than a patch has one."""
    return max(0, math.ceil((length - patch_length) / stride)) + 1


def pad_to_patches(x: Tensor, patch_length: int, stride: int) -> Tensor:
    """Append zeros (False) to the last dimension so that the last patch is whole."""
    length = x.shape[-1]
    missing = (num_patches(length, patch_length, stride) - 1) * stride + patch_length - length
    return F.pad(x, (0, missing)) if missing > 0 else x


def unfold_patches(x: Tensor, patch_length: int, stride: int) -> Tensor:
    """`(..., L)` to `(..., N, P)`, a view where no padding is needed."""
    return pad_to_patches(x, patch_length, stride).unfold(-1, patch_length, stride)


def patch_mask(mask: Tensor | None, patch_length: int, stride: int) -> Tensor | None:
    """Which patches count: `(B, C, L)` bool to `(B, N)`, None for None.

    A patch counts when it holds an observed point of any channel and the patch before it does not already reach the
    last observed point.
    """
    if mask is None:
        return None
    observed_BL = mask.any(dim=1)
    points_L = torch.arange(1, mask.shape[-1] + 1, device=mask.device)
    end_B1 = (observed_BL * points_L).amax(dim=1, keepdim=True)
    holds_BN = unfold_patches(observed_BL, patch_length, stride).any(dim=-1)
    index_N = torch.arange(holds_BN.shape[1], device=mask.device)
    needed_BN = ((index_N - 1) * stride + patch_length < end_B1) | (index_N == 0)
    return holds_BN & needed_BN


def channel_rows(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Each channel as a series of its own: `(B, C, L)` and its mask to `(B * C, 1, L)`."""
    return x.flatten(0, 1)[:, None], None if mask is None else mask.flatten(0, 1)[:, None]
