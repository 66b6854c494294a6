"""Sends to Weights & Biases what a run has beside its metrics and its config."""

import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from krontime.errors import UserError
from krontime.runs.plot.attention import picture
from krontime.storage import CONFUSION_MATRIX, PREDICTIONS
from krontime.training import equipment

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger, WandbLogger


REACHED_WITHIN_S = 10.0
"""Number of seconds after which a server that has not answered counts as not reachable."""


def check_online(config: Mapping[str, Any]) -> None:
    """Check that a run can be sent to Weights & Biases while it trains, where it is to be.

    Args:
        config: resolved, in plain types.

    Raises:
        UserError: there is no key, or none that can be one, the server doesn't answer, or it refuses the key.
    """
    options = equipment.wandb_options(config)
    if options is None or options.get("offline") or os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return
    import wandb

    instead = "or logger.wandb.offline=true, which writes a run that wandb sync sends later"
    try:
        has_key = wandb.login(prompt=False, verify=False)
        url = wandb.setup().settings.base_url
    except (wandb.errors.Error, ValueError) as error:
        said = "; ".join(filter(None, map(str.strip, str(error).splitlines()[:3])))
        raise UserError(
            f"logger.wandb.offline=False: wandb refuses its settings ({said}); expected WANDB_API_KEY and "
            f"WANDB_BASE_URL as it takes them, {instead}"
        ) from error
    if not has_key:
        raise UserError(
            f"logger.wandb.offline=False: there is no API key; expected one (wandb login, or WANDB_API_KEY), {instead}"
        )
    try:
        urllib.request.urlopen(url, timeout=REACHED_WITHIN_S).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"logger.wandb.offline=False: {url} can't be reached ({reason}); expected a connection, {instead}"
        ) from error
    try:
        wandb.login(prompt=False, verify=True)
    except wandb.errors.Error as error:
        raise UserError(
            f"logger.wandb.offline=False: {url} refuses the API key ({error}); expected another one (wandb login), "
            f"{instead}"
        ) from error


def of_wandb(loggers: "Sequence[Logger]") -> "list[WandbLogger]":
    """List the loggers of Weights & Biases among others."""
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
