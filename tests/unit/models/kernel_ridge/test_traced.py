"""What a graph computes is what the closed form computes."""

import pytest
import torch
from torch import Tensor

from krontime.models.kernel_ridge import reference, traced
from krontime.models.kernel_ridge.intervals import IntervalQuantiles
from krontime.models.kernel_ridge.kernels import KernelPoolings
from krontime.models.kernel_ridge.rows import Rows

LENGTH = 70


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Whole, short, with a gap, constant for a while, of three, two and one points, and without any."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, LENGTH, generator=generator).cumsum(dim=1)
    x[3, 10:50] = 1.25
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[1, 41:] = False
    seen[2, 20:30] = False
    for row, end in ((4, 3), (5, 2), (6, 1), (7, 0)):
        seen[row, end:] = False
    return Rows(x * seen, seen, torch.arange(8) % 2)


def test_longest_runs_are_found_at_every_length() -> None:
    for length in (1, 2, 3, 64, 65):
        above = torch.rand(20, length, generator=torch.Generator().manual_seed(length)) > 0.3
        expected = reference._longest_run(above)
        assert torch.equal(traced._longest_run(above.float()), expected.float())


@pytest.mark.parametrize("poolings", [1, 2, 4])
def test_poolings_are_those_of_the_reference(rows: Rows, poolings: int) -> None:
    family = KernelPoolings(
        num_channels=2,
        length=LENGTH,
        scaling="series",
        num_features=2000 * poolings,
        poolings=poolings,
        difference=False,
    )
    biases = 3 * torch.randn(2, family.offsets[-1], generator=torch.Generator().manual_seed(1))
    given = rows.x, rows.seen, rows.channel
    expected = reference.pool_kernels(*given, family.dilations, family.offsets, biases, family.taps, poolings=poolings)
    assert torch.equal(traced.pool_kernels(*given, family.steps, biases, family.taps, poolings=poolings), expected)


def test_competing_kernels_are_those_of_the_reference(rows: Rows) -> None:
    weight = torch.randn(3, 2, 8, 9, generator=torch.Generator().manual_seed(1))
    expected = reference.compete(rows.x, rows.seen, weight, [1, 2, 4])
    torch.testing.assert_close(traced.compete(rows.x, rows.seen, weight, [1, 2, 4]), expected)


def test_spectra_are_those_of_each_rows_own_length() -> None:
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([40, 17, 1])
    x = x * (torch.arange(40) < ends[:, None])
    spectra = traced.spectra(x, ends)
    for row, end in enumerate(ends.tolist()):
        expected: Tensor = torch.fft.rfft(x[row, :end], norm="ortho").abs()
        torch.testing.assert_close(spectra[row, : len(expected)], expected)


def test_quantiles_are_those_of_each_rows_own_intervals(rows: Rows) -> None:
    family = IntervalQuantiles(num_channels=1, length=LENGTH, scaling="series", num_features=2000)
    torch.testing.assert_close(family.traced(rows), family._features(rows), rtol=1e-4, atol=1e-5)
