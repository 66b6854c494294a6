"""How checkpoints are written: whole, with a checksum, the one before kept; after and within epochs, and on SIGTERM.

Where this process is cut off between any two writes, a good checkpoint and the best one that belongs to it are there.
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

from krontime.errors import Terminated
from krontime.storage import replacing
from krontime.training.csv_log import CsvLogger
from krontime.training.module import SeriesClassifier
from krontime.training.torch_internals import mark_as_not_begun

_END_OF_ZIP = b"PK\x05\x06"
_END_SIZE = 22  # of that record, with an empty comment
_MARK = b"sha256:"
_COMMENT_SIZE = len(_MARK) + 64
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
            comment = _MARK + hashlib.sha256(content).hexdigest().encode()
            path = Path(path)
            with replacing(path, keep=previous(path)) as temporary, temporary.open("wb") as file:
                file.write(content)
                file.write(struct.pack("<H", len(comment)) + comment)
            content.release()


def write_checkpoint(module: SeriesClassifier, path: Path) -> None:
    """Write what a trainer would, for a module that has nothing to be trained."""
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    ChecksummedCheckpointIO().save_checkpoint(checkpoint, path)


def previous(path: Path) -> Path:
    """Where the checkpoint before that in `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def checksum_problem(path: Path) -> str | None:
    """What is wrong with a checkpoint's bytes; None where they are those that were written, or it has no checksum."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2 * _COMMENT_SIZE))
        tail = file.read()
        if (start := tail.rfind(_MARK)) < 0:
            return None  # from another program: only its structure can be checked
        comment = tail[start:]
        file.seek(0)
        digest, left = hashlib.sha256(), size - len(comment) - 2
        while left > 0 and (block := file.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
    return None if comment == _MARK + digest.hexdigest().encode() else "its bytes do not match its checksum"


class LastCheckpoint(Checkpoint):
    """The state after every epoch, in `last.ckpt`, and within an epoch where asked or where a SIGTERM ends the run.

    `save_last` of a checkpoint that validation selects is no substitute: Lightning then writes both at once, so that
    the last state is that of the best epoch.

    SIGTERM: Lightning ends such a run without saving what was trained since the epoch began. Here the run goes on to
    the next batch that begins (validation is finished first), saves, and ends.

    Args:
        dirpath: folder of the file.
        every_n_steps: optimiser steps between checkpoints within an epoch; None for none.
    """

    def __init__(self, dirpath: Path, every_n_steps: int | None = None) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._terminated = False
        self._outer_handler: Any = None
        self._within_epoch = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From now on a SIGTERM waits for the next batch."""
        if threading.current_thread() is threading.main_thread():
            self._outer_handler = signal.signal(signal.SIGTERM, self._note_sigterm)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is due; all of the batch before is done and logged by now.

        Raises:
            Terminated: after a SIGTERM.
        """
        if batch_idx % trainer.accumulate_grad_batches:
            return  # a gradient that is half collected is not in a checkpoint
        ends = self._ends(trainer)
        due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if batch_idx and (ends or due):  # before the first batch, the last epoch's checkpoint has all
            self._within_epoch = True
            try:
                self._save(trainer)
            finally:
                self._within_epoch = False
        if ends:
            raise Terminated

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save.

        Raises:
            Terminated: after a SIGTERM.
        """
        self._save(trainer)
        if self._ends(trainer):
            raise Terminated

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A SIGTERM ends the run at once again.

        Raises:
            Terminated: after a SIGTERM.
        """
        self._restore_handler()
        if self._ends(trainer):
            raise Terminated

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """A SIGTERM ends the run at once again."""
        self._restore_handler()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Within an epoch, the batch that is about to begin is not begun."""
        if self._within_epoch:
            mark_as_not_begun(checkpoint)
            if isinstance(pl_module, SeriesClassifier):
                checkpoint[_LOSS_TOTALS] = pl_module.loss_totals()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Within an epoch, resume its training loss, which is in no checkpoint of Lightning's."""
        if isinstance(pl_module, SeriesClassifier) and _LOSS_TOTALS in checkpoint:
            pl_module.set_loss_totals(checkpoint[_LOSS_TOTALS])

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, CsvLogger):
                    logger.sync()
        trainer.save_checkpoint(self.path)

    def _note_sigterm(self, *_: Any) -> None:
        self._terminated = True

    def _restore_handler(self) -> None:
        if self._outer_handler is not None:
            signal.signal(signal.SIGTERM, self._outer_handler)
            self._outer_handler = None

    def _ends(self, trainer: pl.Trainer) -> bool:
        """Whether any process was sent a SIGTERM."""
        if trainer.world_size == 1:
            return self._terminated
        return trainer.strategy.reduce_boolean_decision(self._terminated, all=False)
