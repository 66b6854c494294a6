"""The clock that a limit on training time is kept with, and the processor's time that training took."""

import time
from typing import Any

import lightning.pytorch as pl
import torch


def now_s(device: torch.device, *, num_processes: int = 1) -> float:
    """Read a clock, in seconds; only differences of two readings mean anything.

    Where everything is computed in one thread of this process, it is the processor's time, so that
    other work on the machine costs a run no steps. Elsewhere it is wall-clock time, read once the device is done.

    Args:
        device: the one that computes.
        num_processes: how many compute or read data together.
    """
    if device.type == "cpu" and num_processes == 1 and torch.get_num_threads() == 1:
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class ProcessorTimer(pl.Callback):
    """Counts processor seconds of this process while it trains, over all starts of a run, each up to its checkpoint.

    Attributes:
        seconds: the count; None where a checkpoint that was resumed from has none.
    """

    def __init__(self) -> None:
        self._before_s: float | None = 0.0
        self._began_s: float | None = None

    @property
    def seconds(self) -> float | None:
        """See the class."""
        if self._before_s is None or self._began_s is None:
            return self._before_s
        return self._before_s + time.process_time() - self._began_s

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._began_s = time.process_time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End counting."""
        self._before_s, self._began_s = self.seconds, None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note where a checkpoint was written before there was a count."""
        if self.state_key not in checkpoint.get("callbacks", {}):
            self._before_s = None

    def state_dict(self) -> dict[str, Any]:
        """Return what the checkpoint keeps."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what the checkpoint kept."""
        self._before_s = state_dict["seconds"]
