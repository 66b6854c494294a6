"""Builds from a plain config what Lightning trains with: callbacks, loggers, trainer."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krontime.config.targets import instantiate
from krontime.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.loggers import Logger


def callbacks(config: Mapping[str, Any], run_dir: Path) -> list["Callback"]:
    """Build the callbacks of a plain config, and the one that saves the last epoch, to `run_dir/checkpoints`."""
    from krontime.training.checkpoint import LastCheckpoint

    dirpath = run_dir / "checkpoints"
    built: list[Callback] = []
    for name, options in (config["callbacks"] or {}).items():
        if not options:
            continue  # switched off with callbacks.NAME=null
        extra: dict[str, Any] = {}
        if options["_target_"].endswith(".ModelCheckpoint"):
            extra = {"dirpath": str(dirpath), "save_last": False}  # since Lightning's is not saved after every epoch
        built.append(instantiate(options, f"callbacks.{name}", **extra))
    return [*built, LastCheckpoint(dirpath, config.get("checkpoint_every_n_steps"))]


def wandb_options(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the options of the Weights & Biases logger; None without one, or where WANDB_MODE=disabled."""
    for options in (config.get("logger") or {}).values():
        if options and options["_target_"].endswith(".WandbLogger"):
            return None if os.environ.get("WANDB_MODE") == "disabled" else options
    return None


def loggers(config: Mapping[str, Any], run_dir: Path) -> list["Logger"]:
    """Build the loggers of a plain config, each writing into `run_dir`.

    Weights & Biases knows a run by the hash of its config, so that a resumed one is continued there; a run that
    is forced is a new one.
    """
    from krontime.config.identity import config_hash

    built = []
    for name, options in (config.get("logger") or {}).items():
        if not options:
            continue  # switched off with logger.NAME=null
        if options["_target_"].endswith(".WandbLogger") and wandb_options(config) is None:
            continue
        extra = {"save_dir": str(run_dir)}
        if options["_target_"].endswith(".WandbLogger"):
            group = f"{config['data']['name']}/{config['model']['name']}"
            identity = {"name": f"{group}/{run_dir.name}", "group": group}
            if not config["force"]:
                identity["id"] = config_hash(config)
            extra |= {key: value for key, value in identity.items() if options.get(key) is None}
        built.append(instantiate(options, f"logger.{name}", **extra))
    return built


def finish_wandb(exit_code: int | None = None) -> None:
    """End the Weights & Biases run that this process has open, if any, lest the next run log into it."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish(exit_code=exit_code)


def trainer(
    config: Mapping[str, Any], run_dir: Path, callbacks: list["Callback"], loggers: list["Logger"]
) -> "Trainer":
    """Build Lightning's Trainer from a plain config.

    Raises:
        UserError: the options do not fit this machine, such as a GPU that is not there.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ProgressBar

    from krontime.training.checkpoint import ChecksummedCheckpointIO
    from krontime.training.torch_internals import resume_by_epochs

    options = dict(config["trainer"])
    options["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if isinstance(options["strategy"], Mapping):
        options["strategy"] = instantiate(options["strategy"], "trainer.strategy")
    checkpoint_io = ChecksummedCheckpointIO()
    try:
        built = Trainer(
            **options,
            callbacks=callbacks,
            plugins=[checkpoint_io],
            logger=loggers or False,
            default_root_dir=str(run_dir),
            use_distributed_sampler=False,  # the data module shards, so that a resumed run sees the same order
            num_sanity_val_steps=0,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {error}") from error
    resume_by_epochs(built)
    return built
