"""Asks closed form and network separately about a series, and which levels of the network its answer comes from.

Shape letters: B batch, C channels, L time points, K classes, h levels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from krontime.models.krontime import KronTime
from krontime.training.module import SeriesClassifier


@dataclass(frozen=True)
class Verdicts:
    """What the parts of a model say of one series.

    Attributes:
        closed_form: `(K,)` probabilities; None where there is no closed form.
        network: `(K,)` probabilities, calibrated as in the mixture; None where there is no network.
        weight: of the network's probabilities in the answer.
        levels: for each level from 0 (single tokens) to h (all tokens) the tokens of its groups, and what its features
            add to the network's logit of a class, less what they add to the mean of all classes; empty where the
            network has no such features.
    """

    closed_form: Tensor | None
    network: Tensor | None
    weight: float
    levels: list[tuple[int, float]]


@torch.no_grad()
def verdicts(module: SeriesClassifier, values: Tensor, mask: Tensor | None, target: int) -> Verdicts:
    """Ask each part of a model about one series.

    Args:
        module: trained, on the CPU.
        values: `(C, L)` raw series, 0 where not observed.
        mask: `(C, L)` bool, true where observed; None where all is.
        target: position of the class whose logit is taken apart.
    """
    x, observed = values[None], None if mask is None else mask[None]
    mixture = module.mixture
    closed_form = None if mixture is None else mixture.closed_form_log_probability(x, observed)[0].exp()
    if module.network is None:
        return Verdicts(closed_form, None, 0.0, [])
    logits = module.network_logits(x, observed)[0]
    factor, weight = (1.0, 1.0) if mixture is None else (mixture.mixing.factor, mixture.mixing.weight)
    levels = _levels(module.network, module.normalizer(x, observed), observed, target)
    return Verdicts(closed_form, (factor * logits).softmax(dim=-1), weight, levels)


def _levels(network: nn.Module, x: Tensor, mask: Tensor | None, target: int) -> list[tuple[int, float]]:
    """Return `Verdicts.levels` from scaled series, by what goes into the network's head."""
    if not isinstance(network, KronTime) or not network.head_by_level:
        return []
    features: list[Tensor] = []
    hook = network.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    try:
        network(x, mask)
    finally:
        hook.remove()
    weight = network.head.weight[target] - network.head.weight.mean(dim=0)
    num_levels = network.plan.depth + 1
    # Features are ordered by channel, then by level.
    added = (weight * features[0][0]).unflatten(
        0, (-1, num_levels, network.norm_head.normalized_shape[0] // num_levels)
    )
    sizes = network.plan.trim(network.tokenizer.num_tokens(x.shape[-1]))
    group_sizes = [1, *torch.tensor(sizes).cumprod(dim=0).tolist()]
    return list(zip(group_sizes, added.sum(dim=(0, 2)).tolist(), strict=True))
