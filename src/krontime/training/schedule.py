"""Defines the learning rate over a run."""

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosine(LRScheduler):
    """Linear warm-up over a fraction of the steps, then a cosine down to a fraction of the peak.

    It depends on the number of steps alone, and is computed once a step for all groups of parameters.

    Args:
        optimizer: its learning rate is the peak.
        total_steps: optimiser steps of the run.
        warmup_fraction: fraction of them, 0 to 1.
        min_lr_ratio: factor at the last step, 0 to 1.
    """

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup_fraction: float, min_lr_ratio: float) -> None:
        self.total_steps = total_steps
        self.warmup_fraction = warmup_fraction
        self.min_lr_ratio = min_lr_ratio
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group of parameters at the next step."""
        factor = self.factor(self.last_epoch)
        return [peak * factor for peak in self.base_lrs]

    def factor(self, steps_done: int) -> float:
        """Return what the peak is multiplied by in the step after `steps_done`."""
        warmup_steps = round(self.warmup_fraction * self.total_steps)
        if steps_done < warmup_steps:
            return (steps_done + 1) / (warmup_steps + 1)
        progress = min(1.0, (steps_done - warmup_steps) / max(1, self.total_steps - warmup_steps))
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
