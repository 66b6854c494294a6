"""Each augmentation alone: what it changes, what it never touches, and that a seed repeats it."""

import math

import pytest
import torch
from torch.nn import functional as F

from krontime.training.augment import Augment

LENGTHS = [50, 1, 13, 37, 50, 22]
ALL = {"shift": 0.5, "scale": 0.3, "jitter": 0.2, "mixup": 0.4}


def make_batch(masked: bool = True):
    """Distinct values; series of unequal length with gaps, where masked."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(LENGTHS), 2, 50, generator=generator)
    targets = F.one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3).float()
    if not masked:
        return x, None, targets
    mask = (torch.arange(50) < torch.tensor(LENGTHS)[:, None, None]).expand_as(x).clone()
    mask &= torch.rand(x.shape, generator=generator) > 0.1
    for row, length in enumerate(LENGTHS):
        mask[row, 0, length - 1] = True
    return x * mask, mask, targets


def apply(options, batch, seed=0):
    torch.manual_seed(seed)
    return Augment(**options)(*batch)


both = pytest.mark.parametrize("masked", [True, False])


@both
def test_all_off_is_the_identity(masked):
    batch = make_batch(masked)
    for new, old in zip(apply({}, batch), batch, strict=True):
        assert new is old


@both
@pytest.mark.parametrize("name", ALL)
def test_each_alone_changes_something_and_leaves_its_input_as_it_was(name, masked):
    batch = make_batch(masked)
    copies = [None if part is None else part.clone() for part in batch]
    x, mask, targets = apply({name: ALL[name]}, batch)
    assert not torch.equal(x, batch[0])
    assert torch.equal(targets, batch[2]) == (name != "mixup")
    for part, copy in zip(batch, copies, strict=True):
        assert part is copy is None or torch.equal(part, copy)
    assert (mask is None) == (not masked)
    if masked and name in ("scale", "jitter"):
        assert torch.equal(mask, batch[1])


@both
def test_all_together_keep_shapes_and_zeros_where_nothing_is_observed(masked):
    batch = make_batch(masked)
    for seed in range(5):
        x, mask, targets = apply(ALL, batch, seed)
        assert x.shape == batch[0].shape
        assert x.dtype == torch.float32
        assert mask is None or x[~mask].eq(0).all()
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(len(x)))
        assert (targets >= 0).all()


@both
@pytest.mark.parametrize("options", [{name: value} for name, value in ALL.items()] + [ALL])
def test_a_seed_repeats_it(options, masked):
    batch = make_batch(masked)
    first, again, other = (apply(options, batch, seed) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        assert a is b is None or torch.equal(a, b)
    assert not torch.equal(first[0], other[0])


@both
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_shift_turns_each_series_within_its_own_length(masked, share):
    batch = make_batch(masked)
    lengths = LENGTHS if masked else [50] * len(LENGTHS)
    seen = set()
    for seed in range(20):
        x, mask, _ = apply({"shift": share}, batch, seed)
        for row, length in enumerate(lengths):
            turns = [
                turn
                for turn in range(-math.ceil(share * length), math.ceil(share * length) + 1)
                if torch.equal(x[row, :, :length], batch[0][row, :, :length].roll(turn, dims=-1))
                and (not masked or torch.equal(mask[row, :, :length], batch[1][row, :, :length].roll(turn, dims=-1)))
            ]
            assert turns, (seed, row)
            assert x[row, :, length:].eq(0).all() or not masked
            assert not masked or not mask[row, :, length:].any()
            seen.add((row, turns[0]))
    assert len(seen) > 40  # series are shifted by different amounts
    largest = max(abs(turn) for row, turn in seen if lengths[row] == 50)
    assert 0.5 * min(share, 0.5) * 50 < largest <= round(share * 50)


@both
def test_scale_is_one_factor_for_each_series(masked):
    batch = make_batch(masked)
    x, _, _ = apply({"scale": 0.3}, batch)
    factors = []
    for row in range(len(x)):
        nonzero = batch[0][row] != 0
        ratio = x[row][nonzero] / batch[0][row][nonzero]
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
        factors.append(ratio[0].item())
    assert len(set(factors)) == len(factors)


def test_scale_and_jitter_have_the_deviation_asked_for():
    x = torch.ones(2000, 1, 4)
    targets = torch.ones(2000, 1)
    scaled, _, _ = apply({"scale": 0.3}, (x, None, targets))
    assert scaled[:, 0, 0].mean().item() == pytest.approx(1, abs=0.03)
    assert scaled[:, 0, 0].std().item() == pytest.approx(0.3, rel=0.1)
    noisy, _, _ = apply({"jitter": 0.2}, (x, None, targets))
    assert (noisy - x).std().item() == pytest.approx(0.2, rel=0.05)


@both
def test_mixup_is_a_mean_of_two_series_and_of_their_targets(masked):
    batch = make_batch(masked)
    x, mask, targets = apply({"mixup": 0.4}, batch, seed=1)
    torch.manual_seed(1)
    share = torch.distributions.Beta(0.4, 0.4).sample()
    partner = torch.randperm(len(x))
    assert 0 < share < 1
    torch.testing.assert_close(x, share * batch[0] + (1 - share) * batch[0][partner])
    torch.testing.assert_close(targets, share * batch[2] + (1 - share) * batch[2][partner])
    assert not masked or torch.equal(mask, batch[1] | batch[1][partner])


def test_a_series_without_any_value_stays_empty():
    x, mask, targets = make_batch()
    mask[0] = False
    x = x * mask
    new, new_mask, _ = apply({"shift": 0.5, "scale": 0.3, "jitter": 0.2}, (x, mask, targets))
    assert new[0].eq(0).all()
    assert not new_mask[0].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": 1.5}, "shift=1.5"),
        ({"shift": -0.1}, "shift=-0.1"),
        ({"scale": -1}, "scale=-1"),
        ({"mixup": -1}, "mixup=-1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"augment.{message}"):
        Augment(**options)
