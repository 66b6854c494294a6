"""What a run gives to Weights & Biases beside its metrics and its config."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from krontime.runs.plot.attention import picture
from krontime.storage import CONFUSION_MATRIX, PREDICTIONS

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger, WandbLogger


def of_wandb(loggers: "Sequence[Logger]") -> "list[WandbLogger]":
    """The loggers of Weights & Biases among others."""
    from lightning.pytorch.loggers import WandbLogger

    return [logger for logger in loggers if isinstance(logger, WandbLogger)]


def log_run(logger: "WandbLogger", run_dir: Path, attention: Sequence[Sequence[np.ndarray]]) -> None:
    """Give it the confusion matrix, the test predictions as a table, and a picture of each attention map.

    Args:
        logger: in use.
        run_dir: with the files of the run.
        attention: for each layer, the map `(k_i, k_i)` of each level.
    """
    if (run_dir / PREDICTIONS).is_file():
        logger.log_image("confusion_matrix", [str(run_dir / CONFUSION_MATRIX)])
        logger.log_table("test_predictions", dataframe=pd.read_parquet(run_dir / PREDICTIONS))
    for number, maps in enumerate(attention, start=1):
        for level, factor in enumerate(maps, start=1):
            caption = f"{factor.min():.3g} to {factor.max():.3g}; rows are queries"
            logger.log_image(f"attention/layer{number}_level{level}", [picture(factor)], caption=[caption])


def log_sweep(logger: "WandbLogger", jobs: pd.DataFrame) -> None:
    """Give it a table of a sweep's jobs, a row each, and how many are in each state."""
    logger.log_table("jobs", dataframe=jobs)
    logger.log_metrics({f"sweep/{state}": count for state, count in jobs["state"].value_counts().items()})


def log_search(logger: "WandbLogger", table: Path, plots: Sequence[Path], best: float) -> None:
    """Give it the trials of a search as a table, the plots that there are, and the best value."""
    logger.log_table("trials", dataframe=pd.read_csv(table))
    for plot in plots:
        if plot.is_file():
            logger.log_image(f"search/{plot.stem}", [str(plot)])
    logger.log_metrics({"search/best": best})
