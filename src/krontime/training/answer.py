"""Restates how a trained module answers as one graph from raw series to class probabilities, for export.

Shape letters: B batch, C channels, L time points, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.models.kernel_ridge.mixture import average, mixed
from krontime.training.module import SeriesClassifier, unweighted_logits


class Answer(nn.Module):
    """A module of scaling, network, closed form, mixture and calibration whose operations depend on no value.

    All is computed on as many points as the longest training series has, whatever the length of the input: the levels,
    positions and windows of a network follow from the length of what it is given. No answer depends on padding.

    Args:
        module: the trained module; parts that have no say in its answers are left out.
        length: of the longest training series, in time points.
    """

    class_weights: Tensor | None

    def __init__(self, module: SeriesClassifier, length: int) -> None:
        super().__init__()
        self.length = length
        mixture = module.mixture
        self.mixing = None if mixture is None else mixture.mixing
        has_network = module.network is not None and (self.mixing is None or self.mixing.weight > 0)
        self.network = module.network if has_network else None
        self.normalizer = module.normalizer if has_network else None
        self.register_buffer("class_weights", module.class_weights if has_network else None)
        kept = [] if mixture is None else mixture.closed_form.kept_parts()
        self.parts = nn.ModuleList(kept)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class probabilities `(B, K)` of raw series `(B, C, L)`, float32, NaN where not observed."""
        x = F.pad(x, (0, self.length - x.shape[2]), value=torch.nan)
        mask = ~x.isnan()
        x = torch.where(mask, x, 0.0)
        log_probability = average([part(x, mask) for part in self.parts]) if self.parts else None
        logits = None
        if self.network is not None:
            assert self.normalizer is not None
            logits = unweighted_logits(self.network, self.normalizer, self.class_weights, x, mask)
        if log_probability is None:
            assert logits is not None
            return logits.softmax(dim=-1)
        if logits is not None and self.mixing is not None:
            log_probability = mixed(logits, log_probability, self.mixing.factor, self.mixing.weight)
        return log_probability.softmax(dim=-1)
