"""Tokenizers: geometry, masks, padding; the fixed kernels against an implementation with plain loops."""

import copy
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from krontime.models.layers.kernels import KernelFeatures, minirocket_kernels
from krontime.models.layers.stem import ResidualStem
from krontime.models.layers.tokenizers import ConvPatch, LinearPatch, RocketPatch, Tokenizer

D_MODEL = 8
MAKERS = {
    "linear": partial(LinearPatch, patch_length=16, stride=8),
    "linear-gapless": partial(LinearPatch, patch_length=8, stride=8),
    "conv": partial(ConvPatch, patch_length=16, stride=16, width=6, kernel_size=5),
    "conv-overlapping": partial(ConvPatch, patch_length=16, stride=5, width=6, kernel_size=3, num_layers=3),
    "stem": partial(ResidualStem, patch_length=16, position_length=4, width=6, kernel_sizes=(3, 5, 9)),
    "stem-fine": partial(ResidualStem, patch_length=8, position_length=1, width=6, kernel_sizes=(3, 5), num_blocks=1),
    "rocket": partial(RocketPatch, patch_length=16, stride=16, num_dilations=3),
    "rocket-overlapping": partial(RocketPatch, patch_length=16, stride=7, num_dilations=2, num_biases=2),
    "rocket-plain": partial(RocketPatch, patch_length=16, stride=16, num_dilations=1, difference=False),
}
ROCKETS = [name for name in MAKERS if name.startswith("rocket")]

each_tokenizer = pytest.mark.parametrize("name", MAKERS)
each_rocket = pytest.mark.parametrize("name", ROCKETS)


def make_batch(num_channels: int, length: int, batch_size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise around a channel's own level, and a mask with points missing; the noise is zero there."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch_size, num_channels, length, generator=generator)
    mask = torch.rand(x.shape, generator=generator) > 0.2
    return x * mask, mask


def make_tokenizer(name: str, num_channels: int = 2, length: int = 77) -> Tokenizer:
    torch.manual_seed(0)
    tokenizer = MAKERS[name](num_channels=num_channels, d_model=D_MODEL)
    tokenizer.fit(*make_batch(num_channels, length, batch_size=6, seed=1))
    return tokenizer.eval()


@each_tokenizer
@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 77])
def test_shapes_and_masks(name, num_channels, length):
    tokenizer = make_tokenizer(name, num_channels)
    x, mask = make_batch(num_channels, length)
    mask[0] = False
    tokens, token_mask = tokenizer(x * mask, mask)
    assert tokens.shape == (4, tokenizer.num_tokens(length), D_MODEL)
    assert token_mask.shape == tokens.shape[:2]
    assert tokens[~token_mask].eq(0).all()
    assert not token_mask[0].any()
    assert tokens.isfinite().all()
    assert tokenizer(x).mask is None


@each_tokenizer
def test_a_mask_of_true_changes_nothing(name):
    tokenizer = make_tokenizer(name)
    x, mask = make_batch(2, 77)
    for with_mask, without in zip(tokenizer(x, torch.ones_like(mask)), tokenizer(x), strict=True):
        if with_mask is not None and with_mask.dtype != torch.bool:
            torch.testing.assert_close(with_mask, without, atol=1e-5, rtol=1e-5)


@each_tokenizer
@pytest.mark.parametrize("length", [1, 5, 16, 50])
@pytest.mark.parametrize("observed", [True, False])
def test_padding_changes_no_token(name, length, observed):
    tokenizer = make_tokenizer(name)
    x, mask = make_batch(2, length)
    if observed:
        mask = torch.ones_like(mask)
        x = torch.randn_like(x)
    alone = tokenizer(x, mask)
    for padding in (1, 16, 40):
        padded = tokenizer(F.pad(x, (0, padding)), F.pad(mask, (0, padding)))
        count = alone.tokens.shape[1]
        torch.testing.assert_close(padded.tokens[:, :count], alone.tokens, atol=1e-5, rtol=1e-5)
        assert torch.equal(padded.mask[:, :count], alone.mask)
        assert not padded.mask[:, count:].any()


@each_tokenizer
def test_batch_mates_change_nothing(name):
    tokenizer = make_tokenizer(name)
    x, mask = make_batch(2, 77)
    together = tokenizer(x, mask)
    for row in range(len(x)):
        alone = tokenizer(x[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(alone.tokens[0], together.tokens[row], atol=1e-5, rtol=1e-5)


@each_tokenizer
def test_gradient_reaches_what_is_learned(name):
    tokenizer = make_tokenizer(name)
    x, mask = make_batch(2, 77)
    tokenizer(x, mask).tokens.square().sum().backward()
    for key, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@each_tokenizer
def test_bfloat16_autocast_is_close(name):
    tokenizer = make_tokenizer(name)
    x, mask = make_batch(2, 77)
    exact = tokenizer(x, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = tokenizer(x, mask)
    assert (tokens.tokens.float() - exact.tokens).abs().max() < 0.05 * exact.tokens.abs().max()


@pytest.mark.parametrize("maker", [LinearPatch, ConvPatch, RocketPatch])
@pytest.mark.parametrize(
    ("patch_length", "stride", "message"),
    [
        (8, 9, "stride=9: expected 1 to patch_length=8"),
        (8, 0, "stride=0: expected 1 to patch_length=8"),
        (0, 0, "patch_length=0: expected at least 1"),
    ],
)
def test_impossible_geometry_is_refused(maker, patch_length, stride, message):
    with pytest.raises(ValueError, match=message):
        maker(num_channels=1, d_model=4, patch_length=patch_length, stride=stride)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match=r"^kernel_size=4"):
        ConvPatch(num_channels=1, d_model=4, kernel_size=4)


def test_a_linear_token_is_the_map_of_its_patch():
    tokenizer = make_tokenizer("linear")
    x, mask = make_batch(2, 37)
    tokens, token_mask = tokenizer(x, mask)
    padded = F.pad(x, (0, 16))
    for token in range(tokens.shape[1]):
        patch = padded[:, :, token * 8 : token * 8 + 16]
        expected = patch.flatten(1) @ tokenizer.projection.weight.T + tokenizer.projection.bias
        torch.testing.assert_close(tokens[:, token], expected * token_mask[:, token, None], atol=1e-5, rtol=1e-5)


def test_convolutions_see_zeros_where_nothing_is_observed():
    """Point by point: each layer's output is set to zero before the next one reads it."""
    tokenizer = make_tokenizer("conv", num_channels=1)
    x, mask = make_batch(1, 40)
    hidden = x
    for conv in tokenizer.convs:
        half = conv.kernel_size[0] // 2
        padded = F.pad(hidden, (half, half))
        out = torch.stack(
            [
                torch.einsum("bck,wck->bw", padded[:, :, t : t + 2 * half + 1], conv.weight) + conv.bias
                for t in range(hidden.shape[-1])
            ],
            dim=-1,
        )
        hidden = F.gelu(out) * mask
    tokens = tokenizer(x, mask).tokens
    for patch in range(3):
        part, seen = hidden[..., patch * 16 : patch * 16 + 16], mask[..., patch * 16 : patch * 16 + 16]
        mean = part.sum(-1) / seen.sum(-1)
        largest = F.pad(part, (0, 16 - part.shape[-1])).amax(-1)
        expected = tokenizer.projection(tokenizer.norm(torch.cat([mean, largest], dim=1)))
        torch.testing.assert_close(tokens[:, patch], expected, atol=1e-5, rtol=1e-5)


# MiniRocket's kernels


def test_the_kernels_are_minirockets():
    kernels = minirocket_kernels()
    assert kernels.shape == (84, 1, 9)
    assert kernels.dtype == torch.float32
    assert kernels.unique().tolist() == [-1, 2]
    assert len(kernels.unique(dim=0)) == math.comb(9, 3) == 84
    assert (kernels.sum(dim=-1) == 0).all()  # a constant gives no response


def test_responses_are_those_of_minirockets_own_fast_formula():
    """MiniRocket adds thrice the sum of the three chosen taps to minus the sum of all nine."""
    series = np.random.default_rng(0).standard_normal(50)
    tokenizer = RocketPatch(num_channels=1, d_model=4)
    rows = torch.tensor(series, dtype=torch.float32)[None]
    for dilation in (1, 2, 8):
        taps = np.stack([_shifted(series, (place - 4) * dilation) for place in range(9)])
        expected = np.stack(
            [3 * taps[list(chosen)].sum(axis=0) - taps.sum(axis=0) for chosen in itertools.combinations(range(9), 3)]
        )
        points = torch.arange(50)
        actual = tokenizer.features._responses_at(rows, torch.zeros(50, dtype=torch.long), points, dilation)
        np.testing.assert_allclose(actual.T, expected, atol=1e-5)


def _shifted(series: np.ndarray, offset: int) -> np.ndarray:
    """`series[t + offset]` at t, zero outside."""
    out = np.zeros_like(series)
    for t in range(len(series)):
        if 0 <= t + offset < len(series):
            out[t] = series[t + offset]
    return out


def slow_features(tokenizer: RocketPatch, x: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raw features `(N, F)` and mask `(N,)` of one series `(C, L)`, in float64, with loops."""
    num_channels, length = x.shape
    kernels = tokenizer.features.kernels[:, 0].double().numpy()
    biases = tokenizer.features.biases.double().numpy()
    patch, stride = tokenizer.patch_length, tokenizer.stride
    num_tokens = tokenizer.num_tokens(length)
    per_channel = []
    for c in range(num_channels):
        views = [x[c]]
        if tokenizer.features.difference:
            step = np.zeros(length)
            for t in range(1, length):
                if mask[c, t] and mask[c, t - 1]:
                    step[t] = x[c, t] - x[c, t - 1]
            views.append(step)
        columns = []
        for v, view in enumerate(views):
            for d, dilation in enumerate(tokenizer.features.dilations):
                taps = np.stack([_shifted(view, (place - 4) * dilation) for place in range(9)])
                responses = kernels @ taps
                for b in range(tokenizer.features.num_biases):
                    above = responses - biases[v, d, b][:, None]
                    means, shares = np.zeros((num_tokens, 84)), np.zeros((num_tokens, 84))
                    for token in range(num_tokens):
                        points = [t for t in range(token * stride, min(token * stride + patch, length)) if mask[c, t]]
                        if points:
                            means[token] = np.maximum(above[:, points], 0).mean(axis=1)
                            shares[token] = (above[:, points] > 0).mean(axis=1)
                    columns += [means, shares]
        per_channel.append(np.concatenate(columns, axis=1))
    features = np.concatenate(per_channel, axis=1)
    end = max((t + 1 for t in range(length) if mask[:, t].any()), default=0)
    counts = [
        mask[:, token * stride : token * stride + patch].any() and (token == 0 or (token - 1) * stride + patch < end)
        for token in range(num_tokens)
    ]
    return features, np.array(counts)


@each_rocket
@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("length", [3, 16, 41])
def test_features_equal_the_loops(name, num_channels, length):
    tokenizer = make_tokenizer(name, num_channels)
    x, mask = make_batch(num_channels, length, batch_size=2)
    tokens, token_mask = tokenizer(x, mask)
    for row in range(2):
        raw, counts = slow_features(tokenizer, x[row].double().numpy(), mask[row].numpy())
        assert token_mask[row].tolist() == counts.tolist()
        standard = (raw - tokenizer.token_mean.numpy()) / tokenizer.token_scale.numpy()
        projected = tokenizer.projection(torch.tensor(standard, dtype=torch.float32)) * torch.tensor(counts)[:, None]
        torch.testing.assert_close(tokens[row], projected, atol=1e-3, rtol=1e-3)


@each_rocket
def test_rows_are_worked_through_in_parts_without_a_seam(name, monkeypatch):
    tokenizer = make_tokenizer(name)
    x, mask = make_batch(2, 77, batch_size=5)
    whole = tokenizer(x, mask)
    monkeypatch.setattr("krontime.models.layers.kernels._CPU_POINTS", 160)
    torch.testing.assert_close(tokenizer(x, mask), whole)


def test_points_where_a_series_stands_still_are_on_one_side_of_a_bias_whatever_the_rounding():
    levels = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    x = 10 * levels.repeat_interleave(50, dim=1)
    features = KernelFeatures(patch_length=50, stride=50, num_dilations=3)
    features.fit(x, None)
    single = features(x).values
    torch.testing.assert_close(features.double()(x.double()).values.float(), single, atol=1e-3, rtol=0)


@each_rocket
def test_fitted_features_have_mean_zero_and_deviation_one(name):
    tokenizer = make_tokenizer(name)
    x, mask = make_batch(2, 77, batch_size=6, seed=1)  # what it was fitted to
    features, token_mask = tokenizer._features(x, mask)
    standard = ((features - tokenizer.token_mean) / tokenizer.token_scale)[token_mask]
    assert standard.mean(dim=0).abs().max() < 1e-3
    deviation = standard.std(dim=0, unbiased=False)
    assert ((deviation - 1).abs().lt(1e-2) | deviation.lt(1e-3)).all()  # a constant feature stays one
    assert (deviation - 1).abs().lt(1e-2).float().mean() > 0.9


def test_biases_are_sampled_by_the_seed_of_the_run_unless_one_is_given():
    def biases(run_seed, **options):
        torch.manual_seed(run_seed)
        tokenizer = MAKERS["rocket-plain"](num_channels=2, d_model=D_MODEL, **options)
        tokenizer.fit(*make_batch(2, 77, batch_size=6))
        return tokenizer.features.biases

    assert torch.equal(biases(1), biases(1))
    assert not torch.equal(biases(1), biases(2))
    assert torch.equal(biases(1, seed=0), biases(2, seed=0))


@each_rocket
def test_biases_lie_among_the_responses_of_training(name):
    tokenizer = make_tokenizer(name)
    features = tokenizer.features
    x, mask = make_batch(2, 77, batch_size=6, seed=1)
    for v, view in enumerate(features._views(x.flatten(0, 1), mask.flatten(0, 1))):
        for d, dilation in enumerate(features.dilations):
            responses = F.conv1d(view[:, None], features.kernels, padding=4 * dilation, dilation=dilation)
            seen = responses.transpose(1, 2)[mask.flatten(0, 1)]
            assert (features.biases[v, d] >= seen.amin(dim=0) - 1e-5).all()
            assert (features.biases[v, d] <= seen.amax(dim=0) + 1e-5).all()
    share = tokenizer._features(x, mask)[0][..., 84:168]  # proportion of points above the bias
    assert 0.35 < share.mean() < 0.65  # quantiles are spread evenly


@each_rocket
def test_fit_is_a_function_of_seed_and_series(name):
    x, mask = make_batch(2, 77, seed=3)
    fitted = []
    for seed, series in ((0, x), (0, x), (1, x), (0, x * 2)):
        torch.manual_seed(len(fitted))  # the global generator plays no part
        tokenizer = MAKERS[name](num_channels=2, d_model=D_MODEL, seed=seed)
        before = torch.get_rng_state()
        tokenizer.fit(series, mask)
        assert torch.equal(torch.get_rng_state(), before)
        fitted.append(tokenizer.features.biases)
    assert torch.equal(fitted[0], fitted[1])
    assert not torch.equal(fitted[0], fitted[2])
    torch.testing.assert_close(fitted[3], 2 * fitted[0])


@each_rocket
def test_fit_ignores_what_is_not_observed(name):
    x, mask = make_batch(2, 77, seed=3)
    padded, padded_mask = F.pad(x, (0, 50)), F.pad(mask, (0, 50))
    fitted = []
    for series, observed in ((x, mask), (padded, padded_mask)):
        tokenizer = MAKERS[name](num_channels=2, d_model=D_MODEL)
        tokenizer.fit(series, observed)
        fitted.append({key: value for key, value in tokenizer.state_dict().items() if "projection" not in key})
    for key in fitted[0]:
        torch.testing.assert_close(fitted[0][key], fitted[1][key], atol=1e-3, rtol=1e-3, msg=key)


@each_rocket
def test_what_was_fitted_travels_in_the_state(name):
    tokenizer = make_tokenizer(name)
    other = MAKERS[name](num_channels=2, d_model=D_MODEL)
    x, mask = make_batch(2, 77)
    assert not torch.equal(other.features.biases, tokenizer.features.biases)
    other.load_state_dict(tokenizer.state_dict())
    torch.testing.assert_close(other(x, mask), tokenizer(x, mask), rtol=0, atol=0)


@each_rocket
def test_a_forward_pass_changes_nothing_that_was_fitted(name):
    tokenizer = make_tokenizer(name).train()
    before = copy.deepcopy(tokenizer.state_dict())
    tokenizer(*make_batch(2, 77, seed=9))
    assert all(torch.equal(value, before[key]) for key, value in tokenizer.state_dict().items())


@each_rocket
def test_fit_survives_series_that_are_empty_constant_or_shorter_than_a_kernel(name):
    x, mask = make_batch(2, 5)
    for series, observed in (
        (x, mask),
        (torch.zeros(4, 2, 5), None),
        (torch.zeros(4, 2, 1), None),
        (x * 0, mask & (torch.arange(4) > 1)[:, None, None]),
    ):
        tokenizer = MAKERS[name](num_channels=2, d_model=D_MODEL)
        tokenizer.fit(series, observed)
        assert all(value.isfinite().all() for value in tokenizer.state_dict().values())
        assert tokenizer(series, observed).tokens.isfinite().all()


@each_rocket
def test_fit_survives_series_without_any_value(name):
    tokenizer = MAKERS[name](num_channels=2, d_model=D_MODEL)
    tokenizer.fit(torch.zeros(4, 2, 20), torch.zeros(4, 2, 20, dtype=torch.bool))
    assert all(value.isfinite().all() for value in tokenizer.state_dict().values())
