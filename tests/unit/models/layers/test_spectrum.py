"""Spectra of patches against SciPy, and what padding and gaps do to them."""

import numpy as np
import pytest
import torch
from scipy.signal import periodogram
from torch.nn import functional as F

from krontime.models.layers.spectrum import num_frequencies, patch_spectra


@pytest.mark.parametrize("patch_length", [1, 2, 5, 64])
@pytest.mark.parametrize("length", [3, 64, 96, 200])
def test_power_is_that_of_a_windowed_patch(patch_length: int, length: int) -> None:
    x = torch.randn(3, length, generator=torch.Generator().manual_seed(0))
    spectra = patch_spectra(x, None, patch_length)
    stride = (patch_length + 1) // 2
    window = np.sin(np.pi * (np.arange(patch_length) + 0.5) / patch_length) ** 2
    assert spectra.values.shape[2] == num_frequencies(patch_length)
    for n in range(spectra.values.shape[1]):
        patch = x[:, n * stride : n * stride + patch_length].double().numpy()
        assert spectra.observed[:, n].eq(patch.shape[1]).all()
        filled = np.pad(patch, [(0, 0), (0, patch_length - patch.shape[1])])
        _, power = periodogram(
            filled, window=window, detrend=False, scaling="density", fs=1 / (window**2).sum(), return_onesided=False
        )
        expected = np.log1p(power[:, : num_frequencies(patch_length)] / patch.shape[1] / 1e-6)
        np.testing.assert_allclose(spectra.values[:, n], expected, atol=2e-4, rtol=1e-3)
    assert spectra.values.shape[1] == max(1, -(-(length - patch_length) // stride) + 1)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 96, 97, 150])
@pytest.mark.parametrize("padding", [1, 32, 77])
def test_padding_adds_no_patch_that_counts(length: int, padding: int) -> None:
    x = torch.randn(2, length, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(x, dtype=torch.bool)
    spectra = patch_spectra(F.pad(x, (0, padding)), F.pad(mask, (0, padding)), 64)
    expected = patch_spectra(x, mask, 64)
    num_patches = expected.values.shape[1]
    torch.testing.assert_close(spectra.values[:, :num_patches], expected.values)
    torch.testing.assert_close(spectra.observed[:, :num_patches], expected.observed)
    assert spectra.observed[:, num_patches:].eq(0).all()
    assert spectra.values[:, num_patches:].eq(0).all()


def test_silence_is_nothing_however_long() -> None:
    """No rounding is left that would depend on the length, and that standardising would make large."""
    for length in (64, 1000, 5321):
        assert patch_spectra(torch.zeros(1, length), None, 64).values.eq(0).all()


def test_a_sine_stands_out_at_its_frequency_and_half_precision_is_not_used() -> None:
    x = torch.sin(2 * torch.pi * 8 / 64 * torch.arange(640.0))[None]
    with torch.autocast("cpu", torch.bfloat16):
        spectra = patch_spectra(x.bfloat16(), None, 64).values
    assert spectra.dtype is torch.float32
    assert spectra.argmax(dim=2).eq(8).all()
    assert patch_spectra(x.double(), None, 64).values.dtype is torch.float64
