"""Explains what decided the class of a series: occlusion of the whole model, gradients and attention of the network.

Shape letters: B batch, C channels, L time points, N tokens, H heads, k_i size of level i (lowest first).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from krontime.models.layers.attention import LevelAttention
from krontime.training.attention_maps import layers_with_factors
from krontime.training.module import SeriesClassifier

NUM_STRETCHES = 50
"""About the number of hidden stretches: each is `2 / NUM_STRETCHES` of the series, and neighbours overlap by half."""

NUM_STEPS = 32
"""Number of points of the path that gradients are integrated along."""


@dataclass(frozen=True)
class Attribution:
    """An explanation of the classification of one series, by point and by token.

    Attributes:
        target: position of the class that is explained.
        probability: that the model gives it.
        occlusion: `(L,)`, by how much the log-odds of that class fall when a stretch around the point is hidden, mean
            over the stretches that hold the point. A probability near 1 would hardly move; its log-odds do.
        gradients: `(L,)`, what each point adds to the network's logit of the class, channels summed (integrated
            gradients, Sundararajan, Taly, Yan 2017, arXiv 1703.01365); zeros without a network.
        attention: for each layer with a factor per level, `(N,)`: the fraction of all attention that each token gets,
            padded tokens among them; empty where the network has no such factors.
    """

    target: int
    probability: float
    occlusion: Tensor
    gradients: Tensor
    attention: list[Tensor]


def attribution(module: SeriesClassifier, values: Tensor, mask: Tensor | None, target: int) -> Attribution:
    """Explain the classification of one series.

    Args:
        module: trained, on the CPU.
        values: `(C, L)` raw series, 0 where not observed.
        mask: `(C, L)` bool, true where observed; None where all is.
        target: position of the class to explain.
    """
    module = module.eval()
    x, observed = values[None], None if mask is None else mask[None]
    with torch.no_grad():
        probability = module(x, observed).softmax(dim=-1)[0]
    return Attribution(
        target=target,
        probability=float(probability[target]),
        occlusion=_occlusion(module, x, observed, target),
        gradients=_gradients(module, x, observed, target),
        attention=_attention(module, x, observed),
    )


def _baseline(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of each channel over its observed points, at every observed point: `(B, C, L)`."""
    count = x.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = (x.sum(dim=-1, keepdim=True) / count).expand_as(x)
    return mean if mask is None else mean * mask


def _occlusion(module: SeriesClassifier, x: Tensor, mask: Tensor | None, target: int) -> Tensor:
    """Return by how much the log-odds of a class fall where stretches are hidden: `(L,)`, see `Attribution`."""
    from captum.attr import Occlusion

    num_channels, length = x.shape[1:]
    width = max(1, -(-2 * length // NUM_STRETCHES))

    def log_odds(series: Tensor) -> Tensor:
        observed = None if mask is None else mask.expand_as(series)
        logits = module(series, observed).double()
        others = logits.clone()
        others[:, target] = -torch.inf
        result: Tensor = logits[:, target] - others.logsumexp(dim=-1)
        return result

    with torch.no_grad():
        drop = Occlusion(log_odds).attribute(
            x,
            sliding_window_shapes=(num_channels, min(width, length)),
            strides=(num_channels, max(1, width // 2)),
            baselines=_baseline(x, mask),
        )
    result: Tensor = drop[0, 0].float().detach()
    return result


def _gradients(module: SeriesClassifier, x: Tensor, mask: Tensor | None, target: int) -> Tensor:
    """Return what each point adds to the network's logit of a class: `(L,)`, see `Attribution`."""
    from captum.attr import IntegratedGradients

    network = module.network
    if network is None:
        return torch.zeros(x.shape[-1])
    # A series is scaled by its own deviation, which would be 0 at the baseline; so the path is one of scaled series.
    scaled = module.normalizer(x, mask)

    def network_logits(series: Tensor) -> Tensor:
        result: Tensor = network(series, None if mask is None else mask.expand_as(series))
        return result

    added = IntegratedGradients(network_logits).attribute(
        scaled, baselines=torch.zeros_like(scaled), target=target, n_steps=NUM_STEPS, internal_batch_size=8
    )
    result: Tensor = added[0].sum(dim=0).detach()
    return result


def _attention(module: SeriesClassifier, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Return the fraction of attention that each token gets, layer by layer, of raw series; see `Attribution`."""
    return [] if module.network is None else received_attention(module.network, module.normalizer(x, mask), mask)


@torch.no_grad()
def received_attention(module: nn.Module, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Return, for each layer with a factor per level, the fraction of attention that each token gets: `(N,)`.

    Of the map `A_h kron ... kron A_1` the mean over its rows is the Kronecker product of the means over the rows of the
    factors, so that no `N x N` matrix is ever made. Mean over series and heads.

    Args:
        module: holds the layers.
        x: `(B, C, L)` scaled series.
        mask: `(B, C, L)` bool, true where observed; None where all is.
    """
    layers = layers_with_factors(module)
    received: list[Tensor] = []

    def keep_received(layer: nn.Module, inputs: tuple[Tensor, Tensor | None]) -> None:
        assert isinstance(layer, LevelAttention)
        joined: Tensor | None = None
        for factor in layer.factors(*inputs):  # (B, H, k_i, k_i), lowest level first
            column = factor.mean(dim=2)
            joined = column if joined is None else (column[..., :, None] * joined[..., None, :]).flatten(2)
        assert joined is not None
        received.append(joined.mean(dim=(0, 1)))

    hooks = [layer.register_forward_pre_hook(keep_received) for layer in layers]
    try:
        module(x, mask)
    finally:
        for hook in hooks:
            hook.remove()
    return received
