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


def quiet_lightning() -> None:
    """Lightning's warnings stay, less those of `NOT_NEWS`; its notices and tips go."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOT_NEWS:
        warnings.filterwarnings("ignore", message=message)
