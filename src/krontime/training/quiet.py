"""Keeps Lightning from logging what does not help the user of a finished command."""

import logging
import warnings

HIDDEN_WARNINGS = (
    r"You are using a custom batch sampler",  # ours returns every index
    r"The '\w+_dataloader' does not have many workers",  # gathering from the memory map is faster without
    r"Checkpoint directory .* exists and is not empty",  # a run that is resumed
    r"The number of training batches .* is smaller than the logging interval",  # losses are logged each epoch too
    r"Experiment logs directory .* exists and is not empty",  # a run that is resumed
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # between Lightning and PyTorch
)
"""Patterns of warnings that are hidden, each with the reason."""

_LAUNCHER_LOGGER = "lightning.fabric.strategies.launchers.subprocess_script"
"""Name of the logger that says, at level INFO and alone, that all processes end since one has died."""


def _pass_as_error(record: logging.LogRecord) -> bool:
    """Let through, as an error, the one notice that a process has died, and no other."""
    if "terminated with code" not in (message := record.getMessage()):
        return False
    cause = message.partition(" Forcefully")[0]
    record.levelno, record.levelname, record.args = logging.ERROR, "ERROR", ()
    record.msg = f"{cause} This ends all processes of the training; the same command resumes from the last checkpoint."
    return True


def quiet_lightning() -> None:
    """Hide Lightning's notices and tips, and the warnings of `HIDDEN_WARNINGS`; its other warnings stay."""
    launcher = logging.getLogger(_LAUNCHER_LOGGER)
    launcher.setLevel(logging.INFO)
    if _pass_as_error not in launcher.filters:
        launcher.addFilter(_pass_as_error)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in HIDDEN_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
