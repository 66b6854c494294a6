"""What ended a run that was not the program's fault is said so, and what was stays as it is."""

import errno
import logging
from pathlib import Path

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.distributed import DistBackendError, DistNetworkError

from krontime.runs.failures import explained, storage_problem
from krontime.training.quiet import quiet_lightning

CONFIG = {"data": {"num_workers": 0}, "trainer": {}}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [::1]:1234"),
        RuntimeError("[../gloo/gloo/transport/tcp/pair.cc:534] Read error [::1]:2: Connection reset by peer"),
        RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation"),
        DistBackendError("NCCL error: remote process exited or there was a network error, NCCL version 2.27"),
        DistNetworkError("The client socket has timed out"),
    ],
)
def test_a_lost_rank_is_explained(error: BaseException) -> None:
    told = explained(error, CONFIG, Path("run"))
    assert told is not None
    assert "another process of this training ended" in str(told)
    assert "the same command" in str(told)


@pytest.mark.parametrize("option", [{"limit_train_batches": 0.001}, {"val_check_interval": 100}])
def test_an_option_that_the_number_of_batches_rules_out_is_the_trainers(tmp_path: Path, option: dict) -> None:
    from lightning.pytorch import Trainer
    from lightning.pytorch.demos.boring_classes import BoringModel

    options = {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False, **option}
    quiet_lightning()
    trainer = Trainer(**options, logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    with pytest.raises((ValueError, MisconfigurationException)) as raised:
        trainer.fit(BoringModel())
    (key, value), *_ = option.items()
    told = explained(raised.value, {**CONFIG, "trainer": options}, tmp_path)
    assert str(told).startswith(f"trainer.{key}={value}: ")
    assert explained(raised.value, {**CONFIG, "trainer": {"max_epochs": 1}}, tmp_path) is None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Connection closed by peer"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        TypeError("gloo Connection closed by peer"),
        AttributeError("x"),
        OSError(errno.ENOENT, "No such file"),
    ],
)
def test_a_fault_of_the_program_is_none_of_the_users(error: BaseException) -> None:
    assert explained(error, CONFIG, Path("run")) is None


def test_the_end_of_a_process_of_a_training_is_said_however_quiet(caplog: pytest.LogCaptureFixture) -> None:
    quiet_lightning()
    launcher = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    launcher.info("a notice that helps nobody")
    launcher.info(
        "[rank: 1] Child process with PID 1 terminated with code -9. Forcefully terminating all other processes"
    )
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "[rank: 1] Child process with PID 1 terminated with code -9. This ends all processes of the training; the same "
        "command resumes from the last checkpoint."
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b.html"),
            "a/b.html: No space left on device: expected room",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded: expected room in the quota"),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "No space left on device: expected room",
        ),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system: expected a folder that can be written"),
        (OSError(errno.ENOENT, "No such file"), None),
        (PermissionError(errno.EACCES, "Permission denied"), None),
        (RuntimeError("something (os error 2)"), None),
        (ValueError("28"), None),
    ],
)
def test_a_full_disk_is_the_storages_whatever_was_done(error: BaseException, said: str | None) -> None:
    assert storage_problem(error) == said
