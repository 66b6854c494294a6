"""Writes checkpoints: whole, with a checksum, the one before kept; after and within epochs, and on SIGTERM or SIGHUP.

Whenever the process is cut off, even between two writes, a good checkpoint and the best one that belongs to it exist.
"""

import hashlib
import io
import signal
import struct
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from krontime.errors import Terminated, ending_signals
from krontime.storage import replacing
from krontime.training.csv_log import CsvLogger
from krontime.training.module import SeriesClassifier
from krontime.training.torch_internals import mark_as_not_begun

_END_OF_ZIP = b"PK\x05\x06"  # begins the last record of a ZIP file
_END_SIZE = 22  # bytes of that record, with an empty comment
_CHECKSUM_PREFIX = b"sha256:"
_COMMENT_SIZE = len(_CHECKSUM_PREFIX) + 64
_LOSS_TOTALS = "krontime_loss_totals"


class ChecksummedCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name, syncs and renames it; keeps the one before as `NAME.previous.ckpt`.

    The checksum of the file is its ZIP comment, so that the two can't be separated and the file is an ordinary
    checkpoint of PyTorch's.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            OSError: it can't be written; what was there before still is.
        """
        assert storage_options is None
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with buffer.getbuffer() as whole:
            assert whole[-_END_SIZE:][:4] == _END_OF_ZIP
            content = whole[:-2]  # all but the length of the comment
            comment = _CHECKSUM_PREFIX + hashlib.sha256(content).hexdigest().encode()
            path = Path(path)
            with replacing(path, keep=previous(path)) as temporary, temporary.open("wb") as file:
                file.write(content)
                file.write(struct.pack("<H", len(comment)) + comment)
            content.release()


def write_checkpoint(module: SeriesClassifier, path: Path) -> None:
    """Write a checkpoint, as a trainer would, of a module that no trainer trains (a closed form alone)."""
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    ChecksummedCheckpointIO().save_checkpoint(checkpoint, path)


def previous(path: Path) -> Path:
    """Return the path under which the checkpoint before that in `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def checksum_problem(path: Path) -> str | None:
    """Say what is wrong with a checkpoint's bytes; None where they match its checksum, or it has none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2 * _COMMENT_SIZE))
        tail = file.read()
        if (start := tail.rfind(_CHECKSUM_PREFIX)) < 0:
            return None  # from another program: only its structure can be checked
        comment = tail[start:]
        file.seek(0)
        digest, left = hashlib.sha256(), size - len(comment) - 2
        while left > 0 and (block := file.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
    return None if comment == _CHECKSUM_PREFIX + digest.hexdigest().encode() else "its bytes do not match its checksum"


class LastCheckpoint(Checkpoint):
    """Saves the state in `last.ckpt` after every epoch, and within one where asked or where a signal ends the run.

    `save_last` of a checkpoint that validation selects is no substitute: Lightning then writes both at once, so that
    the last state is that of the best epoch.

    SIGTERM and SIGHUP: Lightning ends such a run without saving what was trained since the epoch began, or knows
    nothing of the signal. Here the run continues to the next batch that begins (validation is finished first), saves,
    and ends.

    Args:
        dirpath: folder of the file.
        every_n_steps: optimiser steps between checkpoints within an epoch; None for none.
    """

    def __init__(self, dirpath: Path, every_n_steps: int | None = None) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._signal: int | None = None
        self._outer_handlers: dict[int, Any] = {}
        self._within_epoch = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a signal wait for the next batch from now on."""
        if threading.current_thread() is threading.main_thread():
            self._outer_handlers = {number: signal.signal(number, self._note) for number in ending_signals()}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save where a checkpoint is due; the batch before is done and logged by now.

        Raises:
            Terminated: after a signal.
        """
        if batch_idx % trainer.accumulate_grad_batches:
            return  # a gradient that is half collected is not in a checkpoint
        ends = self._was_terminated(trainer)
        due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if batch_idx and (ends or due):  # the first batch has the last epoch's checkpoint before it
            self._within_epoch = True
            try:
                self._save(trainer)
            finally:
                self._within_epoch = False
        if ends:
            raise self._terminated()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the state after the epoch.

        Raises:
            Terminated: after a signal.
        """
        self._save(trainer)
        if self._was_terminated(trainer):
            raise self._terminated()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a signal end the run at once again.

        Raises:
            Terminated: after a signal.
        """
        self._restore_handlers()
        if self._was_terminated(trainer):
            raise self._terminated()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let a signal end the run at once again."""
        self._restore_handlers()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Within an epoch, mark the batch that is about to begin as not begun, and add the training loss up to now."""
        if self._within_epoch:
            mark_as_not_begun(checkpoint)
            if isinstance(pl_module, SeriesClassifier):
                checkpoint[_LOSS_TOTALS] = pl_module.loss_totals()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Resume the training loss of an epoch, which Lightning keeps in no checkpoint."""
        if isinstance(pl_module, SeriesClassifier) and _LOSS_TOTALS in checkpoint:
            pl_module.set_loss_totals(checkpoint[_LOSS_TOTALS])

    def _save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint, once the rows that were logged before it are on the disk."""
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, CsvLogger):
                    logger.sync()
        trainer.save_checkpoint(self.path)

    def _note(self, number: int, *_: Any) -> None:
        self._signal = self._signal or number

    def _terminated(self) -> Terminated:
        """Return the error of the signal; another process may have got it, and then it is a scheduler's."""
        return Terminated(self._signal or signal.SIGTERM)

    def _restore_handlers(self) -> None:
        for number, handler in self._outer_handlers.items():
            signal.signal(number, handler)
        self._outer_handlers.clear()

    def _was_terminated(self, trainer: pl.Trainer) -> bool:
        """Say whether any process of the training was sent a signal that ends it."""
        ends = self._signal is not None
        return ends if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(ends, all=False)
