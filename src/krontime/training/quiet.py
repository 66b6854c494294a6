"""Keep Lightning from saying what does not help the user of a finished command."""

import logging
import warnings

NOT_NEWS = (
    r"You are using a custom batch sampler",  # ours returns every index
    r"The '\w+_dataloader' does not have many workers",  # gathering from the memory map is faster without
    r"Checkpoint directory .* exists and is not empty",  # a run that is resumed
    r"The number of training batches .* is smaller than the logging interval",  # losses are logged each epoch too
    r"Experiment logs directory .* exists and is not empty",  # a run that is resumed
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # between Lightning and PyTorch
)


_LOST_RANK = "lightning.fabric.strategies.launchers.subprocess_script"
"""Logs, as a notice, that it ends all processes of a training since one has died; there is no other message."""


def _as_error(record: logging.LogRecord) -> bool:
    """Let through that a process has died, as what it is to the user."""
    if "terminated with code" not in (message := record.getMessage()):
        return False
    what = message.partition(" Forcefully")[0]
    record.levelno, record.levelname, record.args = logging.ERROR, "ERROR", ()
    record.msg = f"{what} This ends all processes of the training; the same command resumes from the last checkpoint."
    return True


def quiet_lightning() -> None:
    """Lightning's warnings stay, less those of `NOT_NEWS`; its notices and tips go."""
    launcher = logging.getLogger(_LOST_RANK)
    launcher.setLevel(logging.INFO)
    if _as_error not in launcher.filters:
        launcher.addFilter(_as_error)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOT_NEWS:
        warnings.filterwarnings("ignore", message=message)
