"""The spectrum of each patch of a series.

Shape letters: R rows (series of one channel), L time points, P patch length, N patches, F frequencies.
"""

import torch
from torch import Tensor

from krontime.models.layers.kernels import PatchFeatures
from krontime.models.layers.patches import patch_mask, unfold_patches

_LEAST_POWER = 1e-6
"""Powers are given in multiples of this, and 1 is added before the logarithm: silence is 0."""


def num_frequencies(patch_length: int) -> int:
    """F."""
    return patch_length // 2 + 1


@torch.no_grad()
def patch_spectra(x: Tensor, mask: Tensor | None, patch_length: int) -> PatchFeatures:
    """Logarithm of the power at each frequency, in patches of which each covers half of the one before.

    Each patch is multiplied by the sine-squared window (Hann's, sampled between its zeros), and its power divided by
    its observed points, so that one of which half is observed is about as strong. Computed in float32 at least.

    Args:
        x: `(R, L)` normalised series, zero at points that are not observed.
        mask: `(R, L)` bool, or None where all points are observed.
        patch_length: P.
    """
    stride = (patch_length + 1) // 2
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        phase = (torch.arange(patch_length, device=x.device) + 0.5) / patch_length
        window = (torch.pi * phase).sin().square().to(x)
        patches_RNP = unfold_patches(x, patch_length, stride) * window
        observed = x.new_ones(1, x.shape[-1]) if mask is None else mask.to(x.dtype)
        count_RN = unfold_patches(observed, patch_length, stride).sum(dim=-1)
        needed_RN = patch_mask(None if mask is None else mask[:, None], patch_length, stride)
        if needed_RN is not None:
            count_RN = count_RN * needed_RN
        power_RNF = torch.fft.rfft(patches_RNP).abs().square() / count_RN[..., None].clamp(min=1)
        return PatchFeatures((power_RNF / _LEAST_POWER).log1p() * (count_RN[..., None] > 0), count_RN)
