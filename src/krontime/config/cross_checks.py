"""What is wrong with a config whose keys are all right by themselves."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel

from krontime.config.files import config_dir
from krontime.config.sections import Data, Train
from krontime.config.targets import has_network, is_aeon
from krontime.config.time_limit import limit_seconds
from krontime.metrics import METRICS
from krontime.storage import secret_problem

BETTER = {f"val/{name}": "min" if name in ("nll", "ece") else "max" for name in METRICS}
BETTER |= {"val/loss": "min", "train/loss": "min"}
"""Metrics that can be monitored, and which way is better."""

PRECISIONS = ("32-true", "bf16-mixed")
"""Number formats that the networks are right in."""

_SET_BY_RUNS = {
    "callbacks": "callbacks=GROUP",
    "logger": "logger=GROUP",
    "default_root_dir": "paths.output=FOLDER",
    "num_sanity_val_steps": "none, since nothing is validated before the first epoch",
    "use_distributed_sampler": "none, since the batches of each process are chosen here",
    "enable_model_summary": "none (krontime plan shows a network's size)",
    "plugins": "none",
}
"""Arguments of Lightning's trainer that every run sets itself, with what is expected instead."""

_GROUPS = ("tokenizer", "decomposition", "closed_form")
"""Config groups that a model may bring, at the top level."""


def unknown_problems(schema: type[BaseModel], config: Mapping[str, Any]) -> list[str]:
    """A line for each key at the top level that neither a schema nor a group of a model has."""
    known = (*schema.model_fields, *_GROUPS)
    return [
        "suite: expected krontime train -m +suite=NAME, since each of its data sets is a job of a sweep"
        if key == "suite"
        else f"{key}={config[key]!r}: there is no such key"
        for key in config
        if key not in known
    ]


def data_key_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for each key of `data` that its source does not take, or that holds a secret."""
    data, source = config["data"], config["data"]["source"]
    own = {f"data.source.{key}": value for key, value in source.items() if key not in data}
    values = {f"data.{key}": value for key, value in data.items()} | own
    secrets = {key: problem for key, value in values.items() if (problem := secret_problem(key, value))}
    return list(secrets.values()) + [
        f"data.{key}={value!r}: has no effect, since {source['_target_']} does not take it"
        for key, value in data.items()
        if key not in Data.model_fields and key not in source and f"data.{key}" not in secrets
    ]


def accelerator_problem(key: str, accelerator: Any) -> str | None:
    """A line where a GPU is asked for and this machine has none."""
    import torch

    if accelerator == "cuda" or accelerator == "gpu":
        present = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    elif accelerator == "mps":
        present = torch.backends.mps.is_available()
    else:
        return None
    return None if present else f"{key}={accelerator!r}: there is none on this machine; expected cpu, or auto"


def cross_problems(config: Mapping[str, Any], *, is_multirun: bool) -> list[str]:
    """A line for each key of a `train` config that does not go with the others, or with this machine."""
    problems = unknown_problems(Train, config) + data_key_problems(config)
    if problem := accelerator_problem("trainer.accelerator", config["trainer"]["accelerator"]):
        problems.append(problem)
    devices = config["trainer"]["devices"]
    if devices in (0, []):
        problems.append(f"trainer.devices={devices}: expected at least 1, or -1 for all")
    if is_multirun:
        problems += [
            f"trainer.{key}={value}: the further ones would be started with the sweep's command, and train other "
            f"jobs; expected trainer.{key}=1, or one command for each job"
            for key in ("devices", "num_nodes")
            if (value := config["trainer"].get(key, 1)) != 1
        ]
    problems += _number_problems(config["trainer"]) if has_network(config) else _networks_only_problems(config)
    if not has_network(config) and not is_aeon(config) and not config.get("closed_form"):
        problems.append("closed_form=none: expected closed_form=parts, since there is no network to answer instead")
    problems += _length_problems(config)
    for name, callback in (config["callbacks"] or {}).items():
        problems += _callback_problems(f"callbacks.{name}", callback or {})
    if (config["callbacks"] or {}).get("checkpoint", {}) is not None:
        problems += [
            f"callbacks.checkpoint.{key}={value!r}: expected {expected!r}, where the run is looked for afterwards"
            for key, expected in (("filename", "best"), ("dirpath", None), ("save_top_k", 1))
            if (value := (config["callbacks"] or {}).get("checkpoint", {}).get(key, expected)) != expected
        ]
    return problems


def _networks_only_problems(config: Mapping[str, Any]) -> list[str]:
    """What of a run is for networks alone, and so has no effect on one without: it has to be the default."""
    window = config["data"]["window"]
    trainer, default = config["trainer"], OmegaConf.load(config_dir() / "train.yaml")
    assert isinstance(default, DictConfig)
    unused = {
        "compile": (config["compile"], default.compile),
        **{
            f"{group}.{key}": (value, default[group][key])
            for group in ("augment", "loss")
            for key, value in config[group].items()
        },
        **({} if window.get("label") else {"data.window.length": (window["length"], None)}),
        "trainer.accelerator": (trainer["accelerator"], "cpu"),
        **({"trainer.devices": (trainer["devices"], 1)} if is_aeon(config) else {}),
    }
    name = config["model"]["name"]
    return [
        f"{key}={value!r}: expected {expected!r}, since {name} is no network"
        for key, (value, expected) in unused.items()
        if value != expected
    ]


def _number_problems(trainer: Mapping[str, Any]) -> list[str]:
    """What of the trainer's options would silently give other numbers, or none."""
    problems = []
    precision, strategy = trainer["precision"], trainer["strategy"]
    key, target = "trainer.strategy", strategy
    if not isinstance(strategy, str):
        key, target = "trainer.strategy._target_", str(strategy.get("_target_"))
    if precision not in PRECISIONS:
        reason = ", since attention divides by numbers that are 0 in float16" if precision.startswith("16") else ""
        problems.append(f"trainer.precision={precision!r}: expected {' or '.join(PRECISIONS)}{reason}")
    if any(name in target.lower() for name in ("fsdp", "deepspeed", "modelparallel")):
        problems.append(f"{key}={target!r}: expected trainer=ddp, since every network here fits on each device whole")
    if trainer.get("sync_batchnorm"):
        problems.append(
            "trainer.sync_batchnorm=True: expected false, since Lightning's layer in place of ours would count padding "
            "and missing values"
        )
    return problems


def _length_problems(config: Mapping[str, Any]) -> list[str]:
    """What of the trainer's options would leave nothing that is trained, or nothing that is validated."""
    trainer = config["trainer"]
    problems = []
    try:
        limit_seconds(trainer.get("max_time"))
    except ValueError as error:
        problems.append(f"trainer.max_time={trainer['max_time']!r}: {error}")
    problems += [
        f"trainer.{key}={trainer[key]!r}: it is set by krontime; expected {expected}"
        for key, expected in _SET_BY_RUNS.items()
        if key in trainer
    ]
    max_steps = trainer.get("max_steps")
    if isinstance(max_steps, int) and max_steps < 1 and max_steps != -1:
        problems.append(f"trainer.max_steps={max_steps}: expected at least 1, or -1 for no limit")
    epochs = trainer.get("check_val_every_n_epoch")
    if isinstance(epochs, int) and epochs < 1:
        problems.append(f"trainer.check_val_every_n_epoch={epochs}: expected at least 1")
    for key in ("fast_dev_run", "overfit_batches"):
        if trainer.get(key):
            problems.append(
                f"trainer.{key}={trainer[key]!r}: expected none, since its scores would be recorded as those of a run; "
                "for a short one use trainer.max_epochs=1"
            )
    for key in ("limit_test_batches", "limit_predict_batches"):
        if trainer.get(key) is not None:
            problems.append(f"trainer.{key}={trainer[key]!r}: has no effect; every series is scored and predicted")
    if trainer.get("limit_train_batches") in (0, False):
        problems.append(f"trainer.limit_train_batches={trainer['limit_train_batches']!r}: expected some to train on")
    validated = [
        f"callbacks.{name}"
        for name, callback in (config["callbacks"] or {}).items()
        if str((callback or {}).get("monitor")).startswith("val/")
    ]
    if trainer.get("limit_val_batches") in (0, False) and validated:
        problems.append(
            f"trainer.limit_val_batches={trainer['limit_val_batches']!r}: expected some to validate on, since "
            f"{' and '.join(validated)} monitor validation, or {' '.join(f'{name}=null' for name in validated)}"
        )
    return problems


def _callback_problems(key: str, callback: Mapping[str, Any]) -> list[str]:
    """What is wrong with a monitored metric, which way is better, patience, and when a checkpoint is written."""
    problems = []
    monitored, mode, patience = (callback.get(name) for name in ("monitor", "mode", "patience"))
    if callback.get("save_on_exception"):
        problems.append(
            f"{key}.save_on_exception={callback['save_on_exception']!r}: expected false, since the state of a crash "
            "would take the place of a good one (a run resumes from its last whole epoch)"
        )
    if callback.get("save_last", True) is not True:  # true is what earlier configs say, and what is done anyhow
        problems.append(
            f"{key}.save_last={callback['save_last']!r}: has no effect; last.ckpt, to resume from, is always written"
        )
    if callback.get("filename") == "last":
        problems.append(f"{key}.filename='last': expected another name; last.ckpt, to resume from, is always written")
    if monitored is not None and monitored not in BETTER:
        problems.append(f"{key}.monitor={monitored!r}: expected one of {', '.join(BETTER)}")
    elif monitored is not None and mode is not None and mode != BETTER[monitored]:
        problems.append(f"{key}.mode={mode!r}: expected {BETTER[monitored]} for {key}.monitor={monitored}")
    if isinstance(patience, int) and patience < 0:
        problems.append(f"{key}.patience={patience}: expected 0 or more epochs")
    return problems
