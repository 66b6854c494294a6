"""The learning rate over a run."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(
    optimizer: Optimizer,
    *,
    total_steps: int,
    warmup_fraction: float,
    min_lr_ratio: float,
    time_share: Callable[[], float] = lambda: 0.0,
) -> LambdaLR:
    """Linear warm-up over a share of the steps, then a cosine down to a share of the peak.

    Args:
        optimizer: whose learning rate is the peak.
        total_steps: optimiser steps of the run.
        warmup_fraction: fraction of them, 0 to 1.
        min_lr_ratio: factor at the last step, 0 to 1.
        time_share: how much of a run's time is over, 0 to 1, where its time is limited: a run that will not get to its
            last step comes to the end of the schedule nevertheless, as one with fewer steps would.
    """
    warmup_steps = round(warmup_fraction * total_steps)

    def factor(steps_done: int) -> float:
        step = max(steps_done, time_share() * total_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
