"""The parts of a network's logit add up to it, and each part of a model is asked apart."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from krontime.data.normalizer import Normalizer
from krontime.models.krontime import KronTime
from krontime.models.layers.tokenizers import LinearPatch
from krontime.training.module import SeriesClassifier
from krontime.training.verdicts import verdicts


def classifier(network: nn.Module) -> SeriesClassifier:
    return SeriesClassifier(
        network=network, normalizer=Normalizer(scaling="series", num_channels=2), num_classes=3
    ).eval()


@pytest.mark.parametrize("masked", [False, True])
def test_what_levels_add_is_the_logit_over_the_mean_of_the_classes(masked):
    torch.manual_seed(0)
    tokenizer = partial(LinearPatch, patch_length=10, stride=10)
    sizes = {"d_model": 16, "num_heads": 2, "num_layers": 1, "ffn_dim": 16}
    network = KronTime(num_channels=2, length=200, num_classes=3, tokenizer=tokenizer, depth=2, **sizes)
    with torch.no_grad():
        network.head.bias.normal_()
    values, mask = torch.randn(2, 200), None
    if masked:
        mask = torch.ones(2, 200, dtype=torch.bool)
        mask[1] = False  # a channel without any observed point
    said = verdicts(classifier(network), values, mask, target=1)
    assert [size for size, _ in said.levels] == [
        1,
        network.plan.sizes[0],
        network.plan.sizes[0] * network.plan.sizes[1],
    ]
    assert said.network is not None
    log_odds = said.network.log() - network.head.bias.detach()
    added = sum(value for _, value in said.levels)
    assert added == pytest.approx(float(log_odds[1] - log_odds.mean()), abs=1e-4)
    assert (said.closed_form, said.weight) == (None, 1.0)


def test_other_networks_have_no_levels():
    class Mean(nn.Module):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x.mean(dim=(1, 2))[:, None] * torch.ones(3)

    assert verdicts(classifier(Mean()), torch.randn(2, 50), None, target=0).levels == []
