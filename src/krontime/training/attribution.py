"""Which parts of a series decided: occlusion of the whole model, gradients of the network, attention over its tokens.

Shape letters: B batch, C channels, L time points, N tokens, H heads, k_i size of level i (lowest first).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from krontime.models.layers.attention import LevelAttention
from krontime.training.module import SeriesClassifier

NUM_STRETCHES = 50
NUM_STEPS = 32


@dataclass(frozen=True)
class Attribution:
    """What one series' classification rests on.

    Attributes:
        target: the class, as its position, that is explained.
        probability: that the model gives it.
        occlusion: `(L,)`, by how much the log-odds of that class fall when a stretch around the point is hidden, mean
            over the stretches that hold the point. A probability near 1 would hardly move; its log-odds do.
        gradients: `(L,)`, what each point adds to the network's logit of the class, channels summed (integrated
            gradients, Sundararajan, Taly, Yan 2017, arXiv 1703.01365); zeros without a network.
        attention: for each layer with a factor a level, `(N,)`: the fraction of all attention that each token gets,
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
    """The mean of each channel over its observed points, at every point."""
    count = x.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = (x.sum(dim=-1, keepdim=True) / count).expand_as(x)
    return mean if mask is None else mean * mask


def _occlusion(module: SeriesClassifier, x: Tensor, mask: Tensor | None, target: int) -> Tensor:
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
    from captum.attr import IntegratedGradients

    network = module.network
    if network is None:
        return torch.zeros(x.shape[-1])
    # Each series is scaled by its own deviation, which is 0 at the baseline: so the path begins where it is scaled.
    scaled = module.normalizer(x, mask)

    def of_scaled(series: Tensor) -> Tensor:
        result: Tensor = network(series, None if mask is None else mask.expand_as(series))
        return result

    parts = IntegratedGradients(of_scaled).attribute(
        scaled, baselines=torch.zeros_like(scaled), target=target, n_steps=NUM_STEPS, internal_batch_size=8
    )
    result: Tensor = parts[0].sum(dim=0).detach()
    return result


def _attention(module: SeriesClassifier, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    return [] if module.network is None else received_attention(module.network, module.normalizer(x, mask), mask)


@torch.no_grad()
def received_attention(module: nn.Module, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """For each layer with one factor a level, the fraction of attention that each token gets: `(N,)`.

    Of the map `A_h kron ... kron A_1` the mean over its rows is the Kronecker product of the means over the rows of the
    factors, so that no `N x N` matrix is ever made. Mean over series and heads.

    Args:
        module: holds the layers.
        x: `(B, C, L)`.
        mask: `(B, C, L)`, or None.
    """
    layers = [part for part in module.modules() if isinstance(part, LevelAttention)]
    layers = [layer for layer in layers if layer.kind in ("kronecker", "pooled")]
    received: list[Tensor] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, Tensor | None]) -> None:
        assert isinstance(layer, LevelAttention)
        joined: Tensor | None = None
        for factor in layer.factors(*inputs):  # (B, H, k_i, k_i), lowest level first
            column = factor.mean(dim=2)
            joined = column if joined is None else (column[..., :, None] * joined[..., None, :]).flatten(2)
        assert joined is not None
        received.append(joined.mean(dim=(0, 1)))

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        module(x, mask)
    finally:
        for hook in hooks:
            hook.remove()
    return received
