"""A network is mixed in where held-out series speak for it, and nowhere else."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from krontime.models.kernel_ridge.calibration import fit_factor, log_loss, score_loss
from krontime.models.kernel_ridge.mixture import MIN_SERIES, average, mixed, network_mixing, select_parts

ALIKE = torch.full((4,), 0.25)


def draw(num_series: int, signal: float, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits `(n, 4)` that lean to the true class, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (num_series,), generator=generator)
    noise = torch.randn(num_series, 4, generator=generator)
    return scale * (noise + signal * F.one_hot(labels, 4)), labels


def own_of(labels: Tensor, seed: int) -> Tensor:
    noise = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(1000 + seed))
    return (1.5 * (noise + 2 * F.one_hot(labels, 4))).log_softmax(dim=1)


@pytest.mark.parametrize("num_series", [20, 60, 200])
@pytest.mark.parametrize("signal", [0.0, 0.5, 1.0])
def test_an_overfitted_network_does_no_harm(num_series, signal):
    """Its logits are large and mostly wrong; scored on series that neither saw."""
    harms = []
    for seed in range(20):
        logits, labels = draw(2 * num_series, signal, seed, scale=30.0)
        own = own_of(labels, seed)
        mixing = network_mixing(logits[:num_series], own[:num_series], labels[:num_series], ALIKE)
        held = slice(num_series, None)
        after = mixed(logits[held], own[held], mixing.factor, mixing.weight)
        harms.append(float((log_loss(after, labels[held]) - log_loss(own[held], labels[held])).mean()))
    assert np.mean(harms) < 0.005
    assert max(harms) < 0.1


def test_a_network_that_knows_more_is_mixed_in_with_its_own_temperature():
    logits, labels = draw(200, 6.0, seed=0, scale=20.0)
    own = own_of(labels, 0)
    mixing = network_mixing(logits, own, labels, ALIKE)
    assert mixing.weight > 0.5
    assert mixing.factor < 0.5
    assert mixing.gain > 2 * mixing.error
    assert log_loss(mixed(logits, own, *mixing[:2]), labels).mean() < 0.5 * log_loss(own, labels).mean()


def test_windows_of_one_period_count_as_one():
    """Each of twelve windows fifty times, of a network that knows nothing: what it gains is chance."""
    alone, together = 0, 0
    own, period = torch.full((600, 4), 0.25).log(), torch.arange(600) // 50
    for seed in range(20):
        logits, labels = (each.repeat_interleave(50, dim=0) for each in draw(12, 0.0, seed))
        alone += network_mixing(logits, own, labels, ALIKE).weight > 0
        together += network_mixing(logits, own, labels, ALIKE, period).weight > 0
    assert alone > 3
    assert together == 0
    logits, labels = draw(200, 6.0, seed=0)
    assert network_mixing(logits, own_of(labels, 0), labels, ALIKE, torch.arange(200) // 10).weight > 0.5
    assert network_mixing(logits, own_of(labels, 0), labels, ALIKE, torch.arange(200) // 50).weight == 0


def test_few_series_are_no_evidence_and_neither_are_broken_logits():
    logits, labels = draw(MIN_SERIES - 1, 6.0, seed=0)
    assert network_mixing(logits, own_of(labels, 0), labels, ALIKE).weight == 0
    logits, labels = draw(100, 6.0, seed=0)
    logits[3, 1] = float("nan")
    assert network_mixing(logits, own_of(labels, 0), labels, ALIKE).weight == 0


def test_without_weight_the_answer_is_the_same_to_the_bit():
    own = own_of(torch.arange(8) % 4, 0)
    broken = torch.full((8, 4), float("inf"))
    assert torch.equal(mixed(broken, own, 2.0, 0.0), own)
    assert mixed(torch.randn(8, 4), own, 2.0, 0.3).exp().sum(dim=1) == pytest.approx(1, abs=1e-5)


def test_the_average_is_one_of_probabilities():
    parts = [own_of(torch.arange(8) % 4, seed) for seed in range(3)]
    torch.testing.assert_close(average(parts).exp(), torch.stack(parts).exp().mean(dim=0))


def test_a_part_is_dropped_only_where_it_harms_beyond_the_noise():
    labels = torch.arange(80) % 4
    good = [own_of(labels, seed).double() for seed in range(3)]
    useless = torch.full((80, 4), 0.25).log().double()
    confused = own_of((labels + 1) % 4, 7).double()
    assert select_parts(good, labels) == [0, 1, 2]
    assert select_parts([good[0], confused, good[1], confused, good[2]], labels) == [0, 2, 4]
    assert select_parts([confused, useless], labels) == [1]
    few = labels[: MIN_SERIES - 1]
    assert select_parts([good[0][: len(few)], confused[: len(few)]], few) == [0, 1]


def test_groups_that_err_together_are_one_piece_of_evidence_each():
    labels = torch.arange(80) % 4
    good = own_of(labels, 0).double()
    useless = torch.full((80, 4), 0.25).log().double()
    harmed = torch.arange(80) < 20  # all of one group, and none of the others
    other = torch.where(harmed[:, None], own_of((labels + 1) % 4, 7).double(), good)
    assert select_parts([good, other], labels) == [0]
    assert select_parts([good, other], labels, torch.arange(80) // 20) == [0, 1]
    assert select_parts([good, useless], labels, torch.arange(80) // 20) == [0]
    assert select_parts([good, useless], labels, torch.full((80,), 7)) == [0, 1]


def test_logits_that_never_err_do_not_become_certain():
    labels = torch.arange(20) % 4
    logits = F.one_hot(labels, 4).double()
    p = (fit_factor(logits, labels) * logits).softmax(dim=1)[torch.arange(20), labels]
    assert 0.9 < p.min() < 0.995
    assert fit_factor(logits[:0], labels[:0]) > 0


def test_the_factor_restores_calibration():
    logits, labels = draw(3000, 2.0, seed=0)
    assert fit_factor(5 * logits, labels) == pytest.approx(fit_factor(logits, labels) / 5, rel=0.02)


def test_the_loss_of_balanced_accuracy_weighs_classes_alike():
    _, labels = draw(40, 1.0, seed=0)
    own = own_of(labels, 0)
    torch.testing.assert_close(score_loss(own, labels, ALIKE), log_loss(own, labels))
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1])
    loss = score_loss(own, labels, prior)
    expected = -(own - prior.log()).log_softmax(dim=1)[torch.arange(40), labels] / prior[labels]
    torch.testing.assert_close(loss / loss.sum(), expected / expected.sum())
