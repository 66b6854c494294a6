"""Mean attention maps of a trained KronTime, for plots.

Shape letters: B batch, H heads, k_i size of level i (lowest first).
"""

import numpy as np
import torch

from krontime.data.datamodule import SeriesDataset
from krontime.data.series import SeriesData
from krontime.models.layers.attention import LevelAttention
from krontime.training.module import SeriesClassifier

MAX_SERIES = 8
"""Number of series that maps are averaged over, at most."""

MAX_POINTS = 2**19
"""Number of values of these series in all, at most, but for one series."""


def layers_with_factors(module: torch.nn.Module) -> list[LevelAttention]:
    """List the attention layers of a module that have one factor, `(k_i, k_i)` for each head, per level."""
    layers = [part for part in module.modules() if isinstance(part, LevelAttention)]
    return [layer for layer in layers if layer.kind in ("kronecker", "pooled")]


def mean_factors(
    module: SeriesClassifier, data: SeriesData, indices: np.ndarray, *, masked: bool | None = None
) -> list[list[np.ndarray]]:
    """Average the attention factors of each layer and level over heads and over the first few of some series.

    Args:
        module: trained.
        data: all series.
        indices: positions of those to average over.
        masked: see `SeriesDataset`.

    Returns:
        For each layer, the mean factor A_i `(k_i, k_i)` of each level; empty for a network without a map per level.
    """
    layers = layers_with_factors(module)
    if not layers:
        return []
    factors: list[list[np.ndarray]] = []

    def keep_factors(layer: torch.nn.Module, inputs: tuple[torch.Tensor, torch.Tensor | None]) -> None:
        assert isinstance(layer, LevelAttention)
        factors.append([factor.mean(dim=(0, 1)).cpu().numpy() for factor in layer.factors(*inputs)])

    count = max(1, min(MAX_SERIES, MAX_POINTS // (data.num_channels * data.spec.length)))
    batch = SeriesDataset(data, masked).__getitems__(indices[:count].tolist())
    device = next(module.parameters()).device
    hooks = [layer.register_forward_pre_hook(keep_factors) for layer in layers]
    try:
        with torch.no_grad():
            module.eval().network_logits(batch.x.to(device), None if batch.mask is None else batch.mask.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return factors
