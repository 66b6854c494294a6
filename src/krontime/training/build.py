"""Config to objects. Beside `checks`, the only place that sees a DictConfig."""

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from krontime.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.loggers import Logger
    from torch import nn

    from krontime.data.series import SeriesSpec
    from krontime.models.read_out import KernelReadOut
    from krontime.runs.classical_fit import Reference

ALLOWED_TARGETS = (
    "krontime.models.",
    "krontime.runs.classical_fit.",
    "aeon.classification.",
    "krontime.data.sources.",
    "torch.optim.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.strategies.",
    "optuna.samplers.",
    "optuna.pruners.",
)
"""Modules whose classes a config may name as `_target_`; nothing else is ever built."""

REFERENCE = "krontime.runs.classical_fit.Reference"
"""What a model that is no network has as `_target_`."""


def register_resolvers() -> None:
    """Make `${krontime.user_cache:}`, `${krontime.stem:PATH}`, `${krontime.last_name:A.B}` and
    `${krontime.config_hash:}` known to OmegaConf.
    """
    OmegaConf.register_new_resolver("krontime.user_cache", _user_cache, replace=True)
    OmegaConf.register_new_resolver("krontime.stem", lambda path: Path(path).stem, replace=True)
    OmegaConf.register_new_resolver("krontime.last_name", lambda path: path.rpartition(".")[2], replace=True)
    OmegaConf.register_new_resolver("krontime.config_hash", _root_hash, replace=True)


def _user_cache() -> str:
    import platformdirs

    return platformdirs.user_cache_dir("krontime", appauthor=False)


def _root_hash(*, _root_: DictConfig) -> str:
    from krontime.runs.record import config_hash

    return config_hash(plain(_root_))


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config as plain dicts and lists, without Hydra's own part.

    Raises:
        UserError: a value is missing or an interpolation does not resolve.
    """
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    missing = [key for key, value in leaves(OmegaConf.to_container(own)) if value == "???"]
    if missing:
        raise UserError([f"{key}=...: expected a value, and none is given" for key in missing])
    try:
        container = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below a node of a plain config that is no container, and every `_target_`, with its dotted key."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            dotted = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield dotted, value
            else:
                yield from leaves(value, dotted)
    elif isinstance(node, list | tuple):  # a checkpoint may hold tuples
        for position, value in enumerate(node):
            yield from leaves(value, f"{key}[{position}]")
    else:
        yield key, node


def refusal(target: Any) -> str | None:
    """Why a `_target_` may not be built, or None where it may: it has to be a class, defined where it is allowed.

    The class is looked up attribute by attribute, and the module it says it comes from is held against the list too,
    so that a module which happens to import something dangerous is no way around.
    """
    if not isinstance(target, str) or not target.startswith(ALLOWED_TARGETS):
        return f"a class from {', '.join(prefix.rstrip('.') for prefix in ALLOWED_TARGETS)}"
    parts = target.split(".")
    try:
        found: Any = importlib.import_module(parts[0])
    except ModuleNotFoundError:
        return f"{parts[0]} to be installed (pip install {parts[0]})"
    for size, part in enumerate(parts[1:], start=2):  # in the order in which Hydra looks
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:size]))
            except ImportError:
                return f"the name of a class that exists ({part!r} was not found)"
    if not inspect.isclass(found) or not f"{found.__module__}.".startswith(ALLOWED_TARGETS):
        return "a class defined in an allowed module"
    return None


def target_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for each `_target_` below a plain config that may not be built, and for each interpolation left in it.

    Hydra would resolve the latter (escaped, or read from a checkpoint) while it builds, and so could make targets that
    were never looked at.
    """
    problems = []
    for key, value in leaves(config):
        if key.rpartition(".")[2] == "_target_":
            if expected := refusal(value):
                problems.append(f"{key}={value!r}: expected {expected}")
        elif isinstance(value, str) and "${" in value:
            problems.append(f"{key}={value!r}: expected a value without ${{, which starts an interpolation")
    return problems


def instantiate(config: Mapping[str, Any], /, **arguments: Any) -> Any:
    """Hydra's `instantiate` on a plain config, behind the list of what may be built.

    Raises:
        UserError: a `_target_` is missing or not allowed, or the object refuses its arguments.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    if problems := target_problems(config):
        raise UserError(problems)
    if "_target_" not in config:
        raise UserError(f"_target_ is missing in {dict(config)!r}: expected the class to build")
    try:
        return hydra.utils.instantiate(config, **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, Exception) and not isinstance(cause, RuntimeError | MemoryError | AssertionError):
            raise UserError(f"{config.get('_target_')}: {cause}") from error
        raise


def source(config: Mapping[str, Any]) -> Any:
    """The data source of a plain `data` config."""
    return instantiate(config["source"])


def is_reference(config: Mapping[str, Any]) -> bool:
    """Whether the model of a plain config is a reference classifier, and not a network."""
    return (config.get("model") or {}).get("_target_") == REFERENCE


def reference(config: Mapping[str, Any], *, num_jobs: int) -> "Reference":
    """The reference classifier of a plain config; seeded as the run, and with as many threads, where it takes them."""
    from hydra.utils import get_class

    options = {key: value for key, value in config["model"].items() if key != "name"}
    if problems := target_problems(options):
        raise UserError(problems)
    takes = inspect.signature(get_class(options["estimator"]["_target_"])).parameters
    shared = {"random_state": config["seed"], "n_jobs": num_jobs}
    estimator = {**{key: value for key, value in shared.items() if key in takes}, **options["estimator"]}
    return instantiate({**options, "estimator": estimator})


def network(config: Mapping[str, Any], spec: "SeriesSpec") -> "nn.Module":
    """The network of a plain config for data of the given sizes; cut into windows where `data.window` says so.

    From then on convolutions on a GPU are as exact in float32 as matrix products are by default (no TF32): all networks
    are compared alike, and the biases of fixed kernels are close to responses.
    """
    import torch

    from krontime.models.windowed import Windowed

    torch.backends.cudnn.allow_tf32 = False
    if is_reference(config):
        raise UserError(f"model={config['model']['name']}: expected a network; this is a classifier to compare with")
    options = {key: value for key, value in config["model"].items() if key != "name"}
    window = (config.get("data") or {}).get("window") or {}
    length = window.get("length") or spec.length
    if window.get("length") and length >= spec.length:
        raise UserError(
            f"data.window.length={length}: expected less than the {spec.length} points of the longest series, or null"
        )
    built = instantiate(options, num_channels=spec.num_channels, length=length, num_classes=spec.num_classes)
    if length == spec.length:
        return built
    return Windowed(built, length=length, stride=window.get("stride") or length)


def read_out(config: Mapping[str, Any], spec: "SeriesSpec") -> "KernelReadOut | None":
    """The read-out of a plain config, which stands beside the network; None where there is none."""
    options = config.get("read_out")
    if not options:
        return None
    built: KernelReadOut = instantiate(
        options, num_channels=spec.num_channels, length=spec.length, num_classes=spec.num_classes
    )
    return built


def callbacks(config: Mapping[str, Any], run_dir: Path) -> list["Callback"]:
    """The callbacks of a plain config; checkpoints go to `run_dir/checkpoints`, that of the last epoch among them."""
    from krontime.training.checkpoint import LastCheckpoint

    dirpath = run_dir / "checkpoints"
    built: list[Callback] = []
    for options in (config["callbacks"] or {}).values():
        if not options:
            continue  # switched off with callbacks.NAME=null
        extra: dict[str, Any] = {}
        if options["_target_"].endswith(".ModelCheckpoint"):  # Lightning's `save_last` is not that of every epoch
            extra = {"dirpath": str(dirpath), "save_last": False}
        built.append(instantiate(options, **extra))
    return [*built, LastCheckpoint(dirpath, config.get("checkpoint_every_n_steps"))]


def loggers(config: Mapping[str, Any], run_dir: Path) -> list["Logger"]:
    """The loggers of a plain config, each writing into `run_dir`.

    Weights & Biases knows a run by the hash of its config, so that one that is resumed goes on there too; a run that
    is forced is a new one.
    """
    from krontime.runs.record import config_hash

    built = []
    for options in (config.get("logger") or {}).values():
        if not options:
            continue  # switched off with logger.NAME=null
        extra = {"save_dir": str(run_dir)}
        if options["_target_"].endswith(".WandbLogger"):
            group = f"{config['data']['name']}/{config['model']['name']}"
            known = {"name": f"{group}/{run_dir.name}", "group": group}
            if not config["force"]:
                known["id"] = config_hash(config)
            extra |= {key: value for key, value in known.items() if options.get(key) is None}
        built.append(instantiate(options, **extra))
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
        options["strategy"] = instantiate(options["strategy"])
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
