"""From a plain config to the objects of a training: network, callbacks, loggers, trainer."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krontime.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from krontime.data.series import SeriesSpec
    from krontime.models.kernel_ridge.classifier import ClosedForm
    from krontime.models.network import SeriesNetwork
    from krontime.training.module import SeriesClassifier

from krontime.config.targets import has_network, instantiate


def network(config: Mapping[str, Any], spec: "SeriesSpec") -> "SeriesNetwork":
    """The network of a plain config for data of the given sizes; cut into windows where `data.window` says so.

    From then on convolutions on a GPU are as exact in float32 as matrix products are by default (no TF32): all networks
    are compared alike, and the biases of fixed kernels are close to responses.
    """
    import torch

    from krontime.models.windowed import Windowed

    torch.backends.cudnn.allow_tf32 = False
    if not has_network(config):
        raise UserError(f"model={config['model']['name']}: expected a network; this is a classifier without one")
    options = {key: value for key, value in config["model"].items() if key != "name"}
    window = (config.get("data") or {}).get("window") or {}
    length = window.get("length") or spec.length
    if window.get("length") and length >= spec.length:
        raise UserError(
            f"data.window.length={length}: expected less than the {spec.length} points of the longest series, or null"
        )
    built: SeriesNetwork = instantiate(
        options, "model", num_channels=spec.num_channels, length=length, num_classes=spec.num_classes
    )
    if length == spec.length:
        return built
    return Windowed(built, length=length, stride=window.get("stride") or length)


def closed_form(config: Mapping[str, Any], spec: "SeriesSpec") -> "ClosedForm | None":
    """The closed form of a plain config, which stands beside the network or alone; None where there is none."""
    options = config.get("closed_form")
    if not options:
        return None
    built: ClosedForm = instantiate(
        options,
        "closed_form",
        num_channels=spec.num_channels,
        length=spec.length,
        num_classes=spec.num_classes,
        seed=config["seed"],
    )
    return built


def callbacks(config: Mapping[str, Any], run_dir: Path) -> list["Callback"]:
    """The callbacks of a plain config; checkpoints go to `run_dir/checkpoints`, that of the last epoch among them."""
    from krontime.training.checkpoint import LastCheckpoint

    dirpath = run_dir / "checkpoints"
    built: list[Callback] = []
    for name, options in (config["callbacks"] or {}).items():
        if not options:
            continue  # switched off with callbacks.NAME=null
        extra: dict[str, Any] = {}
        if options["_target_"].endswith(".ModelCheckpoint"):
            extra = {"dirpath": str(dirpath), "save_last": False}  # Lightning's is not that of every epoch
        built.append(instantiate(options, f"callbacks.{name}", **extra))
    return [*built, LastCheckpoint(dirpath, config.get("checkpoint_every_n_steps"))]


def wandb_options(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The options of the logger to Weights & Biases; None without one, or where WANDB_MODE=disabled switches it off."""
    for options in (config.get("logger") or {}).values():
        if options and options["_target_"].endswith(".WandbLogger"):
            return None if os.environ.get("WANDB_MODE") == "disabled" else options
    return None


def loggers(config: Mapping[str, Any], run_dir: Path) -> list["Logger"]:
    """The loggers of a plain config, each writing into `run_dir`.

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
            known = {"name": f"{group}/{run_dir.name}", "group": group}
            if not config["force"]:
                known["id"] = config_hash(config)
            extra |= {key: value for key, value in known.items() if options.get(key) is None}
        built.append(instantiate(options, f"logger.{name}", **extra))
    return built


def finish_wandb(exit_code: int | None = None) -> None:
    """End the run of Weights & Biases that this process has open, if any: the next one would log into it."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish(exit_code=exit_code)


def trainer(
    config: Mapping[str, Any], run_dir: Path, callbacks: list["Callback"], loggers: list["Logger"]
) -> "Trainer":
    """Lightning's Trainer from a plain config.

    Raises:
        UserError: the options do not fit this machine, such as a GPU that is not there.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ProgressBar

    from krontime.training.checkpoint import ChecksummedCheckpointIO

    options = dict(config["trainer"])
    options["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if isinstance(options["strategy"], Mapping):
        options["strategy"] = instantiate(options["strategy"], "trainer.strategy")
    try:
        return Trainer(
            **options,
            callbacks=callbacks,
            plugins=[ChecksummedCheckpointIO()],
            logger=loggers or False,
            default_root_dir=str(run_dir),
            use_distributed_sampler=False,  # the data module shards, so that a resumed run sees the same order
            num_sanity_val_steps=0,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {error}") from error


def build_module(config: Mapping[str, Any], spec: "SeriesSpec", **extra: Any) -> "SeriesClassifier":
    """The untrained module of a plain config, for data of the given sizes.

    Args:
        config: resolved, in plain types.
        spec: sizes of the data.
        extra: further arguments of `SeriesClassifier`.
    """
    from krontime.data.normalizer import Normalizer
    from krontime.training.augment import Augment
    from krontime.training.module import SeriesClassifier

    augment = config["augment"]
    return SeriesClassifier(
        network=network(config, spec) if has_network(config) else None,
        normalizer=Normalizer(scaling=config["data"]["scaling"], num_channels=spec.num_channels),
        closed_form=closed_form(config, spec),
        num_classes=spec.num_classes,
        seed=config["seed"],
        augment=Augment(**augment) if any(augment.values()) else None,
        optimizer=instantiate(config["optim"]["optimizer"], "optim.optimizer"),
        warmup_fraction=config["optim"]["warmup_fraction"],
        min_lr_ratio=config["optim"]["min_lr_ratio"],
        label_smoothing=config["loss"]["label_smoothing"],
        **extra,
    )
