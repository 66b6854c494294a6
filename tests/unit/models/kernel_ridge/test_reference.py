"""The compiled loops against the reference implementation, and this against aeon's transformers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from krontime.models.kernel_ridge import reference
from krontime.models.kernel_ridge.compiled import TILE, pool_kernels, sample_responses
from krontime.models.kernel_ridge.compiled_competing import compete
from krontime.models.kernel_ridge.kernels import TAPS, KernelPoolings
from krontime.models.kernel_ridge.rows import Rows


def make_rows(num_rows: int, length: int, seed: int, kind: str) -> Rows:
    """Random walks: whole, padded at the end, with holes, or one of them without any observed point."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, 1, length, generator=generator).cumsum(dim=-1) / 4
    mask = torch.ones_like(x, dtype=torch.bool)
    if kind == "padded":
        for row in range(num_rows):
            mask[row, :, int(torch.randint(1, length + 1, (), generator=generator)) :] = False
    elif kind != "whole":
        mask = torch.rand(x.shape, generator=generator) > 0.3
        mask[0] &= kind != "empty"
    return Rows.of(x * mask, None if kind == "whole" else mask)


@settings(max_examples=25, deadline=None)
@given(
    length=st.sampled_from([1, 8, 9, 40, TILE - 1, TILE, TILE + 1, 2 * TILE + 77]),
    kind=st.sampled_from(["whole", "padded", "holes", "empty"]),
    poolings=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 1000),
)
def test_compiled_poolings_are_those_of_the_reference(length, kind, poolings, seed):
    rows = make_rows(3, length, seed, kind)
    taps, dilations, first = torch.tensor(TAPS[::9]), [1, 3, 20], [0, 20, 30, 60]
    biases = torch.randn(2, first[-1], generator=torch.Generator().manual_seed(seed)) * 3
    x, ends, mask, _ = rows.arrays()
    channel = np.array([0, 1, 1])
    out = np.empty((3, poolings, first[-1]), np.float32)
    arrays = (np.asarray(dilations), np.asarray(first), biases.numpy(), taps.numpy())
    pool_kernels(x, ends, mask, channel, *arrays, poolings, out)
    expected = reference.pool_kernels(
        rows.x, rows.seen, torch.tensor(channel), dilations, first, biases, taps, poolings=poolings
    ).numpy()
    np.testing.assert_array_equal(out[:, :2], expected[:, :2])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    length=st.sampled_from([1, 9, TILE - 1, TILE + 1, 2 * TILE + 77]),
    kind=st.sampled_from(["whole", "padded", "holes", "empty"]),
    seed=st.integers(0, 1000),
)
def test_compiled_competitions_are_those_of_the_reference(length, kind, seed):
    rows = make_rows(3, length, seed, kind)
    weight = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(seed))
    x, ends, mask, _ = rows.arrays()
    out = np.empty((3, 2, 2, 3, 8), np.float32)
    compete(x, ends, mask, weight.numpy(), np.array([1, 30]), out)
    expected = reference.compete(rows.x, rows.seen, weight, [1, 30]).numpy()
    np.testing.assert_allclose(out[:, 0], expected[:, 0], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(out[:, 1], expected[:, 1])


@pytest.mark.parametrize("kind", ["whole", "padded", "holes"])
@pytest.mark.parametrize(("length", "max_points"), [(1, 9), (9, 9), (200, 4096), (200, 64)])
def test_sampled_responses_are_those_of_a_convolution(length, max_points, kind):
    taps_of_all = TAPS[::9]
    rows = make_rows(len(taps_of_all), length, 0, kind)
    x, ends = rows.x.numpy(), rows.ends.clamp(min=1).numpy()
    seen = (rows.seen | (torch.arange(length) == 0)).numpy()
    responses, num_points = np.full((len(x), max_points), np.nan, np.float32), np.zeros(len(x), np.int64)
    sample_responses(x, ends, seen, 3, np.array(taps_of_all), responses, num_points)
    for k, taps in enumerate(taps_of_all):
        padded = np.pad(x[k, : ends[k]], 12)
        windows = np.stack([padded[3 * tap : 3 * tap + ends[k]] for tap in range(9)])
        expected = (3 * windows[list(taps)].sum(axis=0) - windows.sum(axis=0))[seen[k, : ends[k]]]
        expected = expected[:: -(-len(expected) // max_points)]
        assert num_points[k] == len(expected)
        np.testing.assert_allclose(responses[k, : num_points[k]], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_points", [1, 2, 150])
def test_biases_are_quantiles_of_the_drawn_series(num_points):
    x = torch.randn(1, 1, 150, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(150)[None, None] < num_points
    options = {"poolings": 1, "difference": False, "scaling": "channel"}
    features = KernelPoolings(num_channels=1, length=150, num_features=84 * 12, **options)
    features._fit(Rows.of(x * mask, mask))
    row = (x * mask)[0, 0, :num_points].numpy()
    for d, dilation in enumerate(features.dilations):
        padded = np.pad(row, 4 * dilation)
        windows = np.stack([padded[tap * dilation : tap * dilation + num_points] for tap in range(9)])
        columns = np.arange(features.offsets[d], features.offsets[d + 1])
        fractions = (columns + 1) * ((5**0.5 + 1) / 2) % 1
        for k, numbers in enumerate(np.split(np.arange(len(columns)), len(TAPS))):
            response = 3 * windows[list(TAPS[k])].sum(axis=0) - windows.sum(axis=0)
            expected = np.quantile(response, fractions[numbers])
            np.testing.assert_allclose(features.biases[0, 0, columns[numbers]], expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 1, 150)).cumsum(axis=-1).astype(np.float32)


def test_proportions_are_minirockets(series):
    from aeon.transformations.collection.convolution_based import MiniRocket

    theirs = MiniRocket(n_kernels=84 * 10, random_state=0).fit(series)
    *_, dilations, each, biases = theirs.parameters
    first = np.concatenate([[0], np.cumsum(84 * each)]).tolist()
    own = reference.pool_kernels(
        torch.tensor(series[:, 0]),
        torch.ones(4, 150, dtype=torch.bool),
        torch.zeros(4, dtype=torch.long),
        dilations.tolist(),
        first,
        torch.tensor(biases)[None],
        torch.tensor(TAPS),
        poolings=1,
    )
    np.testing.assert_allclose(own[:, 0].numpy(), theirs.transform(series), atol=1.01 / 70)  # a point at a bias
    assert np.abs(own[:, 0].numpy() - theirs.transform(series)).mean() < 1e-4


@pytest.mark.slow
def test_the_other_poolings_are_multirockets(series):
    from aeon.transformations.collection.convolution_based import MultiRocket

    theirs = MultiRocket(n_kernels=84 * 10, random_state=0, normalise=False).fit(series)
    transformed = theirs.transform(series)
    dilations, each, biases = theirs.parameter
    first = np.concatenate([[0], np.cumsum(84 * each)]).tolist()
    own = reference.pool_kernels(
        torch.tensor(series[:, 0]),
        torch.ones(4, 150, dtype=torch.bool),
        torch.zeros(4, dtype=torch.long),
        dilations.tolist(),
        first,
        torch.tensor(biases)[None],
        torch.tensor(TAPS),
        poolings=4,
    ).numpy()
    proportion, stretch, mean, position = np.split(transformed[:, : transformed.shape[1] // 2], 4, axis=1)
    positive = proportion > 0.1
    np.testing.assert_allclose(own[:, 0], proportion, atol=1e-6)
    # Theirs is the mean of response plus bias.
    np.testing.assert_allclose((own[:, 2] + 2 * biases)[positive], mean[positive], rtol=1e-3, atol=1e-3)
    borders = np.concatenate(
        [
            np.repeat(np.where((d + np.arange(84)) % 2 == 1, 4 * dilation if 8 * dilation < 150 else 0, 0), count)
            for d, (dilation, count) in enumerate(zip(dilations, each, strict=True))
        ]
    )
    # Theirs is in points, from the inner border of the kernels that are pooled there alone.
    expected = (position + borders + 0.5) / 150
    np.testing.assert_allclose(own[:, 3][positive], expected[positive], atol=1e-5)
    runs = np.rint(own[:, 1] * (150 - 2 * borders))
    # Theirs counts the point before a run, and one less where all are above.
    assert np.abs(stretch - runs)[positive].max() <= 1


def test_competitions_are_hydras(series):
    from aeon.transformations.collection.convolution_based import HydraTransformer

    theirs = HydraTransformer(n_groups=4, random_state=0)
    theirs.fit(series)
    hydra = theirs._hydra
    transformed = theirs.transform(series).numpy().reshape(4, hydra.num_dilations, 2, 2, hydra.h, 8)
    rows = Rows.of(torch.tensor(series), None)
    for view, seen in enumerate((rows, rows.difference())):
        weight = hydra.W[:, view].reshape(hydra.num_dilations, hydra.h, 8, 9)
        own = reference.compete(seen.x, seen.seen, weight, hydra.dilations.tolist()).numpy()
        for kind in range(2):
            np.testing.assert_allclose(
                own[:, kind], transformed[:, :, view, kind].reshape(own[:, kind].shape), rtol=1e-3, atol=1e-2
            )
