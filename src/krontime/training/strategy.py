"""Data parallel training on several devices and machines, in which no process waits for ever for one that is gone."""

from datetime import timedelta
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from krontime.models.kernel_ridge.ranks import Ranks


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


def join(trainer: Trainer) -> Ranks:
    """Start the processes of a training that is to come, where nothing else starts them, and connect all of them."""
    strategy = trainer.strategy
    if trainer.world_size == 1:
        return Ranks()
    assert strategy.launcher is not None  # of every strategy with more than one process
    strategy.launcher.launch(strategy.setup_environment)

    def total(tensor: Tensor) -> Tensor:
        summed = strategy.reduce(tensor.to(strategy.root_device), reduce_op="sum")
        assert isinstance(summed, Tensor)
        return summed.to(tensor.device)

    return Ranks(trainer.global_rank, trainer.world_size, total, strategy.broadcast)
