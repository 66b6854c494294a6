"""Data parallel training on several devices and machines, in which no process waits for ever for one that is gone."""

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy


class DataParallel(DDPStrategy):
    """Lightning's DDP: every process trains on its own part of each batch, and all take the mean of their gradients.

    Args:
        timeout_s: seconds that a process waits for the others before it ends with an error.
        options: further ones of Lightning's `DDPStrategy`.
    """

    def __init__(self, timeout_s: float = 1800.0, **options: Any) -> None:
        if not timeout_s > 0:
            raise ValueError(f"timeout_s={timeout_s}: expected a number of seconds above 0")
        super().__init__(timeout=timedelta(seconds=timeout_s), **options)
