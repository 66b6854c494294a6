"""Windows: the mean over a series' own windows, whatever it is padded to."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.models.windowed import Windowed

GEOMETRIES = [(20, 20), (20, 7), (20, 1), (64, 16)]
each_geometry = pytest.mark.parametrize(("length", "stride"), GEOMETRIES)


class Probe(nn.Module):
    """A network that tells windows apart by every value, place and mask; it remembers what it was fitted to."""

    def __init__(self, num_channels: int, length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_channels, length, 3, generator=torch.Generator().manual_seed(0)))
        self.fitted: tuple[Tensor, Tensor | None] | None = None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        seen = torch.ones_like(x) if mask is None else mask.to(x.dtype)
        return torch.einsum("bcl,clk->bk", x * seen, self.weight).tanh() + seen.mean(dim=(1, 2))[:, None]

    def fit_tokens(self, x: Tensor, mask: Tensor | None = None) -> None:
        self.fitted = (x, mask)


def by_hand(network: nn.Module, x: Tensor, mask: Tensor, length: int, stride: int) -> Tensor:
    """Mean logits of one series `(C, L)` over the windows that it takes to cover its last observed point.

    A window without a single observed point does not count.
    """
    end = int((mask.any(dim=0) * torch.arange(1, x.shape[-1] + 1)).max())
    logits = []
    start = 0
    while True:
        window, seen = x[:, start : start + length], mask[:, start : start + length]
        missing = length - window.shape[-1]
        if seen.any():
            logits.append(network(F.pad(window, (0, missing))[None], F.pad(seen, (0, missing))[None])[0])
        if start + length >= end:
            break
        start += stride
    return torch.stack(logits).mean(dim=0)


def make_batch(length: int = 90, batch_size: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch_size, 2, length, generator=generator)
    mask = torch.rand(x.shape, generator=generator) > 0.2
    return x * mask, mask


@each_geometry
@pytest.mark.parametrize("series_length", [1, 19, 20, 21, 90])
def test_the_mean_over_windows(length, stride, series_length):
    network = Probe(2, length)
    x, mask = make_batch(series_length)
    mask[:, :, 0] = True
    windowed = Windowed(network, length=length, stride=stride)
    expected = torch.stack([by_hand(network, *series, length, stride) for series in zip(x, mask, strict=True)])
    torch.testing.assert_close(windowed(x, mask), expected)
    everything = torch.ones_like(mask)
    expected = torch.stack([by_hand(network, series, everything[0], length, stride) for series in x])
    torch.testing.assert_close(windowed(x), expected)
    torch.testing.assert_close(windowed(x, everything), expected)


@each_geometry
def test_unequal_lengths(length, stride):
    network = Probe(2, length)
    x, _ = make_batch()
    lengths = [90, 1, 33, 64]
    mask = (torch.arange(90) < torch.tensor(lengths)[:, None, None]).expand_as(x)
    expected = torch.stack([by_hand(network, *series, length, stride) for series in zip(x * mask, mask, strict=True)])
    actual = Windowed(network, length=length, stride=stride)(x * mask, mask)
    torch.testing.assert_close(actual, expected)


@each_geometry
def test_padding_never_changes_logits(length, stride):
    windowed = Windowed(Probe(2, length), length=length, stride=stride)
    x, mask = make_batch()
    for padding in (1, stride, length, 100):
        padded = windowed(F.pad(x, (0, padding)), F.pad(mask, (0, padding)))
        torch.testing.assert_close(padded, windowed(x, mask), atol=1e-6, rtol=0)


def test_a_gap_as_long_as_a_window_does_not_count():
    network = Probe(2, 20)
    x, mask = make_batch()
    mask[:, :, 20:40] = False
    parts = [network(x[..., i : i + 20], mask[..., i : i + 20]) for i in (0, 40, 60)]
    last = network(F.pad(x[..., 80:], (0, 10)), F.pad(mask[..., 80:], (0, 10)))
    expected = torch.stack([*parts, last]).mean(dim=0)
    torch.testing.assert_close(Windowed(network, length=20, stride=20)(x, mask), expected)


def test_a_series_without_any_value_gives_finite_logits():
    x, mask = make_batch()
    mask[0] = False
    assert Windowed(Probe(2, 20), length=20, stride=20)(x * mask, mask).isfinite().all()


@each_geometry
def test_gradient_is_that_of_the_mean(length, stride):
    network = Probe(2, length)
    x, mask = make_batch()
    Windowed(network, length=length, stride=stride)(x, mask).square().sum().backward()
    result = network.weight.grad.clone()
    network.zero_grad()
    rows = [by_hand(network, *series, length, stride) for series in zip(x, mask, strict=True)]
    torch.stack(rows).square().sum().backward()
    torch.testing.assert_close(result, network.weight.grad, atol=1e-5, rtol=1e-4)


def test_the_tokenizer_is_fitted_to_the_windows_that_count():
    network = Probe(2, 20)
    windowed = Windowed(network, length=20, stride=20)
    x, _ = make_batch()
    mask = (torch.arange(90) < torch.tensor([90, 1, 33, 64])[:, None, None]).expand_as(x)
    windowed.fit_tokens(x * mask, mask)
    windows, seen = network.fitted
    assert len(windows) == 5 + 1 + 2 + 4
    assert seen.any(dim=-1).all()
    assert seen.sum() == mask.sum()
    windowed.fit_tokens(x[..., :80], None)
    assert network.fitted[0].shape == (4 * 4, 2, 20)


@pytest.mark.parametrize(("length", "stride"), [(20, 0), (20, 21), (0, 0)])
def test_impossible_windows_are_refused(length, stride):
    with pytest.raises(ValueError, match=rf"stride={stride}.*{length}"):
        Windowed(nn.Identity(), length=length, stride=stride)
