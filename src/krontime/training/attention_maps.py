"""The attention maps of a trained KronTime, to look at.

Shape letters: B batch, H heads, k_i size of level i (lowest first).
"""

import numpy as np
import torch

from krontime.data.datamodule import SeriesDataset
from krontime.data.series import SeriesData
from krontime.models.layers.attention import LevelAttention
from krontime.training.module import SeriesClassifier

MAX_SERIES = 8
MAX_POINTS = 2**19
"""Series that maps are averaged over, and their values in all, at most."""


def mean_factors(
    module: SeriesClassifier, data: SeriesData, indices: np.ndarray, *, masked: bool | None = None
) -> list[list[np.ndarray]]:
    """For each layer, the factors A_i `(k_i, k_i)` of each level, mean over heads and the first of some series.

    Empty for a network without one map per level.

    Args:
        module: trained.
        data: all series.
        indices: positions of those to look at.
        masked: see `SeriesDataset`.
    """
    layers = [part for part in module.modules() if isinstance(part, LevelAttention)]
    layers = [layer for layer in layers if layer.kind in ("kronecker", "pooled")]
    if not layers:
        return []
    factors: list[list[np.ndarray]] = []

    def look(layer: torch.nn.Module, inputs: tuple[torch.Tensor, torch.Tensor | None]) -> None:
        assert isinstance(layer, LevelAttention)
        factors.append([factor.mean(dim=(0, 1)).cpu().numpy() for factor in layer.factors(*inputs)])

    count = max(1, min(MAX_SERIES, MAX_POINTS // (data.num_channels * data.spec.length)))
    batch = SeriesDataset(data, masked).__getitems__(indices[:count].tolist())
    device = next(module.parameters()).device
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with torch.no_grad():
            module.eval().network_logits(batch.x.to(device), None if batch.mask is None else batch.mask.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return factors
