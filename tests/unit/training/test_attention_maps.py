"""The attention maps that a run shows: of each layer and level, averaged over series and heads."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from krontime.runs.plot.attention import picture
from krontime.runs.prepare import load_data
from krontime.training import attention_maps, build
from krontime.training.attention_maps import mean_factors
from krontime.training.module import SeriesClassifier

SMALL = (
    *("data=synthetic", "data.source.num_train=16", "data.source.num_test=4", "data.source.length=600"),
    *("data.source.num_classes=2", "tokenizer=linear", "model.d_model=8", "model.num_heads=2", "model.num_layers=2"),
)


@pytest.fixture
def network(compose: Callable[..., dict[str, Any]]) -> Callable[..., tuple[SeriesClassifier, Any]]:
    def made(*overrides: str) -> tuple[SeriesClassifier, Any]:
        config = compose(*SMALL, *overrides)
        data = load_data(config)
        torch.manual_seed(0)
        return build.build_module(config, data.spec).eval(), data

    return made


def test_there_is_a_map_of_each_layer_and_level_whose_rows_sum_to_one(network):
    module, data = network("decomposition=depth3")
    factors = mean_factors(module, data, np.arange(5))
    assert [[factor.shape for factor in maps] for maps in factors] == [[(k, k) for k in module.network.plan.sizes]] * 2
    for maps in factors:
        for factor in maps:
            np.testing.assert_allclose(factor.sum(axis=1), 1, atol=1e-5)


def test_it_is_the_mean_over_the_first_series_and_their_heads(network, monkeypatch):
    module, data = network()
    single = [mean_factors(module, data, np.array([index])) for index in (4, 1)]
    both = mean_factors(module, data, np.array([4, 1]))
    for first, second, mean in zip(*(maps for actual in (*single, both) for maps in actual[:1]), strict=True):
        np.testing.assert_allclose((first + second) / 2, mean, atol=1e-6)
    monkeypatch.setattr(attention_maps, "MAX_SERIES", 1)
    np.testing.assert_array_equal(mean_factors(module, data, np.array([4, 1]))[0][0], single[0][0][0])


def test_a_network_without_a_map_per_level_has_none(network):
    for overrides in (["model.attention=axial"], ["model.attention=none"]):
        module, data = network(*overrides)
        assert mean_factors(module, data, np.arange(2)) == []


def test_a_picture_keeps_the_shape_of_small_maps_and_is_brightest_where_they_are_largest():
    factor = np.full((3, 3), 0.1)
    factor[1, 2] = 0.8
    result = picture(factor)
    assert result.dtype == np.uint8
    assert result.shape == (258, 258, 3)
    blocks = result.astype(int).reshape(3, 86, 3, 86, 3).sum(axis=(1, 3, 4))
    assert blocks.argmax() == 5
