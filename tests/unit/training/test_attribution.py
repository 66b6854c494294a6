"""Attributions point at what decides, and the attention over time is that of the whole map."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from krontime.data.normalizer import Normalizer
from krontime.models.krontime import KronTime
from krontime.models.layers.attention import LevelAttention
from krontime.models.layers.tokenizers import LinearPatch
from krontime.training.attribution import attribution, received_attention
from krontime.training.module import SeriesClassifier

LENGTH, START, STOP = 400, 120, 160


class BurstDetector(nn.Module):
    """Class 1 where the energy between START and STOP is high; nothing else plays a part."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        energy = x[..., START:STOP].square().mean(dim=(1, 2))
        return torch.stack([torch.zeros_like(energy), 4 * (energy - 2)], dim=1)


def burst(num_channels: int = 1) -> Tensor:
    """Noise with a strong burst between START and STOP."""
    values = torch.randn(num_channels, LENGTH, generator=torch.Generator().manual_seed(0))
    values[:, START:STOP] += 5 * torch.sin(torch.arange(STOP - START) / 2)
    return values


def classifier(network: nn.Module, num_channels: int = 1) -> SeriesClassifier:
    normalizer = Normalizer(scaling="series", num_channels=num_channels)
    return SeriesClassifier(network=network, normalizer=normalizer, num_classes=2).eval()


@pytest.mark.parametrize("kind", ["occlusion", "gradients"])
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_attributed_lies_where_the_class_is_decided(kind, masked):
    mask = torch.ones(1, LENGTH, dtype=torch.bool) if masked else None
    explained = attribution(classifier(BurstDetector()), burst(), mask, 1)
    assert explained.probability > 0.9
    values = getattr(explained, kind).clamp(min=0)
    assert values[START - 16 : STOP + 16].sum() > 0.95 * values.sum()


@pytest.mark.parametrize("kind", ["occlusion", "gradients"])
def test_deleting_what_is_attributed_changes_the_class_and_inserting_it_alone_keeps_it(kind):
    module, values = classifier(BurstDetector()), burst()
    explained = attribution(module, values, None, 1)
    first = getattr(explained, kind).argsort(descending=True)[:60]
    mean = values.mean()
    deleted, inserted = values.clone(), torch.full_like(values, float(mean))
    deleted[:, first] = mean
    inserted[:, first] = values[:, first]
    with torch.no_grad():
        probability = module(torch.stack([deleted, inserted])).softmax(dim=-1)[:, 1]
    assert probability[0] < 0.5 < probability[1]


def test_another_class_can_be_asked_for():
    explained = attribution(classifier(BurstDetector()), burst(), None, target=0)
    assert explained.target == 0
    assert explained.occlusion.min() < -0.5  # without the burst, class 0 would be likelier


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_attention_over_tokens_is_the_mean_row_of_the_whole_map(depth):
    torch.manual_seed(0)
    network = KronTime(
        num_channels=2,
        length=LENGTH,
        num_classes=2,
        tokenizer=partial(LinearPatch, patch_length=10, stride=10),
        depth=depth,
        d_model=16,
        num_heads=2,
        num_layers=2,
        ffn_dim=16,
    ).eval()
    x = torch.randn(3, 2, LENGTH)
    whole: list[Tensor] = []

    def dense(layer: LevelAttention, inputs: tuple[Tensor, Tensor | None]) -> None:
        factors = layer.factors(*inputs)
        rows, heads = factors[0].shape[:2]
        maps = []
        for row in range(rows):
            for head in range(heads):
                joined = factors[0][row, head]
                for factor in factors[1:]:
                    joined = torch.kron(factor[row, head], joined)
                maps.append(joined.mean(dim=0))
        whole.append(torch.stack(maps).mean(dim=0))

    layers = [layer for layer in network.modules() if isinstance(layer, LevelAttention)]
    hooks = [layer.register_forward_pre_hook(dense) for layer in layers]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    received = received_attention(network, x, None)
    assert len(received) == len(whole) == 2
    for ours, theirs in zip(received, whole, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
        assert ours.sum() == pytest.approx(1, abs=1e-5)


def test_a_network_without_factors_has_no_attention_to_show():
    assert received_attention(BurstDetector(), torch.randn(1, 1, LENGTH), None) == []
