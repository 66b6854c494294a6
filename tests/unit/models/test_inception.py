"""Inception: the published shapes and number of parameters, its fixed filters, a module by hand, missing points."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from krontime.models.inception import Inception, InceptionModule, ObservedBatchNorm, hand_crafted_filters


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make_inception(**options) -> Inception:
    return Inception(num_channels=1, length=100, num_classes=3, **options)


def num_learned(network: Inception) -> int:
    head = sum(parameter.numel() for parameter in network.head.parameters())
    return sum(parameter.numel() for parameter in network.parameters()) - head


def test_size_is_the_published_one():
    # Ismail-Fawaz et al. 2023 (LITE): Inception has 420,192 parameters before the last layer.
    assert num_learned(make_inception(hand_crafted=False)) == 420_192
    # 17 more channels after the first module: their norm, and rows of two 1 x 1 convolutions in the second.
    assert num_learned(make_inception()) == 420_192 + 17 * (2 + 32 + 32)


def test_widths_and_kernels_are_the_published_ones():
    network = make_inception()
    assert [module.out_channels for module in network.inception] == [145, 128, 128, 128, 128, 128]
    for module in network.inception:
        assert [branch.kernel_size[0] for branch in module.branches] == [40, 20, 10]
    assert [tuple(shortcut.map.weight.shape) for shortcut in network.shortcuts] == [(128, 1, 1), (128, 128, 1)]


def test_fixed_filters_find_what_they_are_named_after():
    filters = hand_crafted_filters()
    assert filters.shape == (17, 96)
    nonzero = [int((row != 0).sum()) for row in filters]
    assert nonzero == [2, 4, 8, 16, 32, 64, 2, 4, 8, 16, 32, 64, 6, 12, 24, 48, 96]
    torch.testing.assert_close(filters.sum(dim=1), torch.zeros(17), atol=1e-5, rtol=0)  # blind to a constant
    torch.testing.assert_close(filters[:6], -filters[6:12])
    rising, falling = filters[0][filters[0] != 0], filters[6][filters[6] != 0]
    assert rising.tolist() == [-1, 1]
    assert falling.tolist() == [1, -1]
    for row in filters[12:]:
        taps = row[row != 0]
        torch.testing.assert_close(taps, taps.flip(0))
        assert taps.argmax().item() in (len(taps) // 2 - 1, len(taps) // 2)


def test_fixed_filters_are_placed_as_single_ones_that_keep_the_length():
    x = torch.randn(1, 1, 200)
    together = F.conv1d(F.pad(x, (47, 48)), hand_crafted_filters()[:, None])
    for number, row in enumerate(hand_crafted_filters()):
        taps = row[row != 0]
        left = (len(taps) - 1) // 2  # of TensorFlow's `same`
        alone = F.conv1d(F.pad(x, (left, len(taps) - 1 - left)), taps[None, None])
        torch.testing.assert_close(together[:, number : number + 1], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("hand_crafted", [True, False])
def test_module_equals_one_written_out_by_hand(in_channels, hand_crafted):
    module = InceptionModule(
        in_channels, num_filters=2, bottleneck=4, kernel_sizes=[6, 3, 1], hand_crafted=hand_crafted
    ).double()
    module(torch.randn(8, in_channels, 30, dtype=torch.float64), None)  # moves the running statistics
    module.eval()
    x = torch.randn(in_channels, 25, dtype=torch.float64).numpy()
    state = {key: value.numpy() for key, value in module.state_dict().items()}

    def same(signal: np.ndarray, weight: np.ndarray) -> np.ndarray:
        size, length = weight.shape[-1], signal.shape[-1]
        out = np.zeros((len(weight), length))
        for t in range(length):
            for k in range(size):
                source = t + k - (size - 1) // 2
                if 0 <= source < length:
                    out[:, t] += weight[:, :, k] @ signal[:, source]
        return out

    narrow = state["bottleneck.weight"][..., 0] @ x if in_channels > 1 else x
    largest = np.stack([x[:, max(0, t - 1) : t + 2].max(axis=1) for t in range(25)], axis=1)
    parts = [same(narrow, state[f"branches.{branch}.weight"]) for branch in range(3)]
    parts.append(state["pooled.weight"][..., 0] @ largest)
    if hand_crafted:
        fixed = hand_crafted_filters().double().numpy()[:, None].repeat(in_channels, axis=1)
        parts.append(np.maximum(same(x, fixed), 0))
    joined = np.concatenate(parts)
    normed = (joined - state["norm.running_mean"][:, None]) / np.sqrt(state["norm.running_var"] + 1e-5)[:, None]
    expected = np.maximum(normed * state["norm.weight"][:, None] + state["norm.bias"][:, None], 0)
    actual = module(torch.from_numpy(x)[None], None)[0].detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-6)  # the fixed filters are rounded to float32


def test_statistics_in_training_are_those_of_observed_points():
    x, mask = torch.randn(4, 3, 20, dtype=torch.float64), torch.rand(4, 20) > 0.4
    masked, plain = (ObservedBatchNorm(3).double() for _ in range(2))
    ours = masked(x, mask)
    observed = x.transpose(1, 2)[mask].T[None]  # one series of the observed points alone
    torch.testing.assert_close(ours.transpose(1, 2)[mask], plain(observed)[0].T)
    torch.testing.assert_close(masked.running_mean, plain.running_mean)
    torch.testing.assert_close(masked.running_var, plain.running_var)


def test_padding_does_not_change_what_is_learned():
    x = torch.randn(4, 1, 50)
    padded, mask = F.pad(x, (0, 30)), (torch.arange(80) < 50).expand(4, 1, 80)
    network, other = make_inception(), make_inception()
    other.load_state_dict(network.state_dict())
    network(x).square().sum().backward()
    other(padded, mask).square().sum().backward()
    for (key, one), same in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, same.grad, atol=1e-3 * one.grad.abs().max().item(), rtol=1e-2, msg=key)


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(ValueError, match="num_filters=0") as caught:
        make_inception(num_filters=0, bottleneck=0, num_modules=0, kernel_size=3, head_dropout=1.0)
    assert len(str(caught.value).splitlines()) == 5
    for key in ("num_filters", "bottleneck", "num_modules", "kernel_size", "head_dropout"):
        assert f"{key}=" in str(caught.value)
