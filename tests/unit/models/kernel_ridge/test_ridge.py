"""The ridge regression against scikit-learn, and its predictions without a series against fits without it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from krontime.models.kernel_ridge import ridge
from krontime.models.kernel_ridge.ridge import (
    DEFAULT_STRENGTH,
    LARGEST,
    Groups,
    Standardizer,
    StreamedRidge,
    can_be_left_out,
    fit_dual,
    indicators,
)
from krontime.training.torch_internals import TorchDispatchMode, tree_iter


def draw(num_rows: int = 24, num_features: int = 40, num_classes: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % num_classes
    rows = torch.randn(num_rows, num_features, generator=generator)
    rows[:, 0] += labels
    return rows, labels


def reference(rows: torch.Tensor, labels: torch.Tensor, penalty: float) -> Ridge:
    return Ridge(alpha=penalty).fit(rows.double().numpy(), indicators(labels, 3).numpy())


def penalty_of(rows: torch.Tensor, strength: float) -> float:
    return strength * float((rows - rows.mean(dim=0)).double().square().sum(dim=1).mean())


@pytest.mark.parametrize("num_features", [5, 40])
@pytest.mark.parametrize("groups", [None, torch.arange(24) // 4])
def test_the_fit_and_its_left_out_predictions(num_features, groups):
    rows, labels = draw(num_features=num_features)
    fit = fit_dual(rows, labels, 3, None if groups is None else Groups(groups))
    penalty = penalty_of(rows, fit.strength)
    expected = reference(rows, labels, penalty)
    np.testing.assert_allclose(fit.weight.T, expected.coef_, atol=1e-4)
    np.testing.assert_allclose(fit.bias, expected.intercept_, atol=1e-4)
    for group in range(6) if groups is not None else range(24):
        out = (groups if groups is not None else torch.arange(24)) == group
        alone = reference(rows[~out], labels[~out], penalty)
        np.testing.assert_allclose(fit.left_out[out], alone.predict(rows[out].double().numpy()), atol=1e-4)


def test_the_strength_is_that_of_the_smallest_error():
    rows, labels = draw(num_rows=60)
    fit = fit_dual(rows, labels, 3)

    def error(strength: float) -> float:
        total = 0.0
        for out in range(60):
            kept = torch.arange(60) != out
            alone = reference(rows[kept], labels[kept], penalty_of(rows, strength))
            total += float(
                np.square(
                    alone.predict(rows[out : out + 1].double().numpy()) - indicators(labels, 3)[out].numpy()
                ).sum()
            )
        return total

    assert error(fit.strength) <= min(error(10 * fit.strength), error(fit.strength / 10))


def test_classes_of_one_series_each_are_fitted_with_the_default_strength():
    rows, labels = draw(num_rows=3)
    assert not can_be_left_out(labels).any()
    fit = fit_dual(rows, labels, 3)
    assert fit.strength == DEFAULT_STRENGTH
    assert ((rows @ fit.weight + fit.bias).argmax(dim=1) == labels).all()


def test_what_can_be_left_out():
    labels = torch.tensor([0, 0, 1, 2, 2])
    assert can_be_left_out(labels).tolist() == [True, True, False, True, True]
    groups = torch.tensor([7, 8, 7, 9, 9])
    assert can_be_left_out(labels, Groups(groups)).tolist() == [True, True, False, False, False]
    apart, overlapping = (torch.tensor([[0, 9], [step, 20], [20, 29], [30, 39], [40, 49]]) for step in (9, 8))
    assert can_be_left_out(labels, Groups(groups, apart)).tolist() == [True, True, False, False, False]
    assert can_be_left_out(labels, Groups(groups, overlapping)).tolist() == [False, False, False, False, False]


def test_windows_that_overlap_a_group_are_left_out_with_it():
    rows, labels = draw()
    start = 10 * torch.arange(24) + 1000 * (torch.arange(24) >= 12)  # of two recordings
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    start = start[order]
    code = start // 60
    fit = fit_dual(rows, labels, 3, Groups(code, torch.stack([start, start + 25], dim=1)))
    for group in code.unique():
        mine = code == group
        out = ((start[:, None] - start[mine]).abs() < 25).any(dim=1)
        assert mine.sum() < out.sum() < 24
        alone = reference(rows[~out], labels[~out], penalty_of(rows, fit.strength))
        np.testing.assert_allclose(fit.left_out[mine], alone.predict(rows[mine].double().numpy()), atol=1e-4)


def test_equal_series_and_constant_features_do_no_harm():
    rows, labels = draw()
    rows[:, 3] = 1.0
    fit = fit_dual(torch.cat([rows, rows]), torch.cat([labels, labels]), 3)
    assert fit.weight.isfinite().all()
    assert fit.left_out.isfinite().all()
    assert Standardizer.of(rows).scale[3] == 0


def test_one_odd_series_does_not_decide_the_scale():
    rows, _ = draw(num_rows=50)
    before = Standardizer.of(rows)
    rows[7] = 1e20
    rows[8, 0] = float("nan")
    after = Standardizer.of(rows[:8])
    assert torch.isfinite(after.scale).all()
    robust = Standardizer.of(torch.cat([rows[:8], rows[9:]]))
    assert (robust.scale / before.scale - 1).abs().max() < 0.5
    standard = robust(rows)
    assert standard.isfinite().all()
    assert standard.abs().max() <= LARGEST


def test_a_stream_gives_the_same_fit():
    rows, labels = draw(num_rows=200)
    exact = fit_dual(rows, labels, 3)
    streamed = StreamedRidge(40, 3)
    for part in torch.arange(200).split(37):
        streamed.add(rows[part], labels[part])
    weights, biases = streamed.solve([exact.strength, 10.0])
    torch.testing.assert_close(weights[0], exact.weight, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(biases[0], exact.bias, atol=1e-4, rtol=1e-3)
    assert weights[1].norm() < weights[0].norm()


def test_a_stream_goes_on_after_a_solution_as_if_there_had_been_none(monkeypatch):
    """Its matrix is factorised in place, and made again from the half that is left, in blocks."""
    monkeypatch.setattr(ridge, "_MIRRORED_AT_ONCE", 7)
    rows, labels = draw(num_rows=200)
    one, other = StreamedRidge(40, 3), StreamedRidge(40, 3)
    for part in torch.arange(200).split(100):
        one.add(rows[part], labels[part])
        other.add(rows[part], labels[part])
        one.solve([1.0, 0.1])
    for given, expected in zip(one.solve([0.1, 1.0]), other.solve([0.1, 1.0]), strict=True):
        torch.testing.assert_close(given, expected, atol=1e-6, rtol=0)


def test_of_many_features_a_stream_uses_some(monkeypatch):
    monkeypatch.setattr(StreamedRidge, "MAX_COLUMNS", 10)
    rows, labels = draw(num_rows=100)
    streamed = StreamedRidge(40, 3)
    streamed.add(rows[:, streamed.columns], labels)
    weights, _ = streamed.solve([0.1])
    assert weights.shape == (1, 10, 3)
    assert streamed.columns.tolist() == list(range(0, 40, 4))


def test_strengths_that_a_stream_cannot_resolve_are_not_tried():
    assert min(ridge.STREAMED_STRENGTHS) > 1e-4 > min(ridge.STRENGTHS)


def test_no_copy_of_all_features_is_made(monkeypatch):
    """The largest tensor that is made is a few columns of them."""
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in tree_iter(out):
                if isinstance(tensor, torch.Tensor) and not func.is_view:
                    largest = max(largest, tensor.numel())
            return out

    monkeypatch.setattr(ridge, "_COLUMNS_AT_ONCE", 50)
    rows, labels = draw(num_features=400)
    expected, standardizer = fit_dual(rows, labels, 3), Standardizer.of(rows)
    with Largest():
        fit, again = fit_dual(rows, labels, 3), Standardizer.of(rows)
    assert 0 < largest < rows.numel() / 4
    assert torch.equal(fit.weight, expected.weight)
    assert torch.equal(again.scale, standardizer.scale)
    assert torch.equal(again(rows), again.in_place(rows.clone()))
