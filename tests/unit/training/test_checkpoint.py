"""Checkpoint files: whole or not there, damage seen, the one before kept; and when the last one is written."""

import io
import os
import signal
import zipfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from krontime.errors import Terminated, UserError
from krontime.runs import load
from krontime.training.checkpoint import ChecksummedCheckpointIO, LastCheckpoint, checksum_problem, previous
from krontime.training.module import FORMAT_VERSION
from krontime.training.quiet import quiet_lightning

STATE = {"weights": torch.arange(1000.0), "step": 3, "krontime": {"format_version": FORMAT_VERSION}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.ckpt"
    ChecksummedCheckpointIO().save_checkpoint(STATE, path)
    return path


class TestFile:
    def test_is_an_ordinary_checkpoint_with_its_checksum_in_the_zip_comment(self, path: Path) -> None:
        loaded = torch.load(path, weights_only=True)
        assert torch.equal(loaded["weights"], STATE["weights"])  # type: ignore[arg-type]
        with zipfile.ZipFile(path) as archive:
            assert archive.comment.startswith(b"sha256:")
            assert archive.testzip() is None
        assert checksum_problem(path) is None

    def test_one_bit_anywhere_is_seen(self, path: Path) -> None:
        whole = path.read_bytes()
        for position in (0, 70, len(whole) // 2, len(whole) - 200, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(UserError, match="checksum"):
                load.load_checkpoint(path)

    @pytest.mark.parametrize("size", [0, 1, 100, -1000, -73, -1])
    def test_a_file_that_was_cut_short_is_seen(self, path: Path, size: int) -> None:
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(UserError, match="not a readable checkpoint"):
            load.load_checkpoint(path)

    def test_zeros_as_a_power_cut_leaves_them_are_seen(self, path: Path) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[:2000] + bytes(len(whole) - 2000))
        with pytest.raises(UserError, match="not a readable checkpoint"):
            load.load_checkpoint(path)

    def test_one_without_a_checksum_is_read(self, tmp_path: Path) -> None:
        torch.save(STATE, tmp_path / "earlier.ckpt")
        assert load.load_checkpoint(tmp_path / "earlier.ckpt")["step"] == 3

    def test_the_one_before_is_kept(self, path: Path) -> None:
        ChecksummedCheckpointIO().save_checkpoint({**STATE, "step": 4}, path)
        ChecksummedCheckpointIO().save_checkpoint({**STATE, "step": 5}, path)
        assert load.load_checkpoint(path)["step"] == 5
        assert load.load_checkpoint(previous(path))["step"] == 4
        assert sorted(p.name for p in path.parent.iterdir()) == ["last.ckpt", "last.previous.ckpt"]

    @pytest.mark.parametrize("fails", ["fsync", "replace"])
    def test_one_that_cannot_be_written_leaves_a_good_one(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        original = Path.replace
        monkeypatch.setattr(os, "fsync", full if fails == "fsync" else lambda _: None)
        if fails == "replace":  # of the new one; the old one is out of the way by then
            monkeypatch.setattr(Path, "replace", lambda p, t: full() if p.name[0] == "." else original(p, t))
        with pytest.raises(OSError, match="No space"):
            ChecksummedCheckpointIO().save_checkpoint({**STATE, "step": 4}, path)
        (left,) = path.parent.iterdir()
        assert load.load_checkpoint(left)["step"] == 3

    def test_nothing_but_plain_values_is_read(self, path: Path) -> None:
        buffer = io.BytesIO()
        torch.save({**STATE, "code": Path("x")}, buffer)
        path.write_bytes(buffer.getvalue())
        with pytest.raises(UserError, match="plain values and tensors"):
            load.load_checkpoint(path)


class Steps(pl.LightningModule):
    """One weight, six batches an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch_idx))
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(12.0)[:, None]), batch_size=2)


class SignalAt(pl.Callback):
    """Sends this process a signal in the middle of a batch."""

    def __init__(self, epoch: int, batch: int, number: int = signal.SIGTERM) -> None:
        self.at = (epoch, batch)
        self.number = number

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_idx) == self.at:
            os.kill(os.getpid(), self.number)


def fit(folder: Path, *callbacks: pl.Callback, every_n_steps: int | None = None, **options: Any) -> Steps:
    quiet_lightning()
    module = Steps()
    trainer = pl.Trainer(
        max_epochs=2,
        callbacks=[*callbacks, LastCheckpoint(folder, every_n_steps)],
        plugins=[ChecksummedCheckpointIO()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module)
    return module


class TestLast:
    @pytest.mark.parametrize(
        ("every", "accumulate", "expected"),
        [(None, 1, [6, 12]), (4, 1, [4, 6, 8, 12]), (2, 1, [2, 4, 6, 8, 10, 12]), (1, 3, [1, 2, 3, 4])],
    )
    def test_is_written_after_epochs_and_within(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None, accumulate: int, expected: list[int]
    ) -> None:
        steps = []
        original = ChecksummedCheckpointIO.save_checkpoint

        def spy(self: Any, checkpoint: Any, *arguments: Any, **options: Any) -> None:
            steps.append(checkpoint["global_step"])
            original(self, checkpoint, *arguments, **options)

        monkeypatch.setattr(ChecksummedCheckpointIO, "save_checkpoint", spy)
        fit(tmp_path, every_n_steps=every, accumulate_grad_batches=accumulate)
        assert steps == expected

    @pytest.mark.parametrize(
        ("epoch", "batch", "accumulate", "step"),
        [(0, 0, 1, 1), (0, 3, 1, 4), (0, 5, 1, 6), (1, 1, 2, 4), (1, 5, 1, 12)],
    )
    def test_sigterm_saves_what_was_trained_and_ends(
        self, tmp_path: Path, epoch: int, batch: int, accumulate: int, step: int
    ) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Terminated) as stopped:
            fit(tmp_path, SignalAt(epoch, batch), accumulate_grad_batches=accumulate)
        assert stopped.value.code == 143
        assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == step
        assert signal.getsignal(signal.SIGTERM) == before

    def test_a_terminal_that_is_closed_ends_it_likewise(self, tmp_path: Path) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            with pytest.raises(Terminated) as stopped:
                fit(tmp_path, SignalAt(1, 2, signal.SIGHUP))
            assert stopped.value.code == 129
            assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 9
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_nohup_is_left_as_it_is(self, tmp_path: Path) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            fit(tmp_path, SignalAt(0, 1, signal.SIGHUP))
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)
