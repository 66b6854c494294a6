"""All problems of a config in one error, before anything is built or read."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from krontime.config.files import config_dir
from krontime.config.signatures import argument_problems, worded
from krontime.config.targets import has_network, is_aeon, target_problems
from krontime.config.time_limit import limit_seconds
from krontime.errors import UserError
from krontime.metrics import METRICS

BETTER = {f"val/{name}": "min" if name in ("nll", "ece") else "max" for name in METRICS}
BETTER |= {"val/loss": "min", "train/loss": "min"}
"""Metrics that can be monitored, and which way is better."""

PRECISIONS = ("32-true", "bf16-mixed")
"""Number formats that the networks are right in."""

_GROUPS = ("tokenizer", "decomposition", "closed_form")
"""Config groups that a model may bring, at the top level."""


class _Section(BaseModel):
    """A part of a config: no unknown keys, no silent conversion of text to numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


_FolderName = Annotated[str, Field(min_length=1, pattern=r"^[^/\\.][^/\\]*$")]
"""What a run folder can be named after."""


class _Prepare(_Section):
    resample_hz: float | None = Field(gt=0)
    resample_length: int | None = Field(ge=2)
    crop_length: int | None = Field(ge=1)
    crop_from: Literal["start", "center", "end"]

    @model_validator(mode="after")
    def _one_way_to_resample(self) -> "_Prepare":
        if self.resample_hz is not None and self.resample_length is not None:
            raise ValueError(
                f"resample_length={self.resample_length}: expected null where resample_hz is set (or the reverse)"
            )
        return self


class _Window(_Section):
    length: int | None = Field(ge=1)
    stride: int | None = Field(ge=1)

    @model_validator(mode="after")
    def _stride_fits(self) -> "_Window":
        if self.stride is not None and self.length is None:
            raise ValueError("stride has no effect without length")
        if self.stride is not None and self.length is not None and self.stride > self.length:
            raise ValueError(f"stride={self.stride} would skip points between windows of length={self.length}")
        return self


class _Validation(_Section):
    method: Literal["auto", "given", "stratified", "group", "kfold"]
    fraction: float = Field(gt=0, lt=1)
    num_folds: int = Field(ge=2)
    fold: int = Field(ge=0)
    max_train: int | None = Field(default=None, ge=2)

    @model_validator(mode="after")
    def _fold_exists(self) -> "_Validation":
        if self.fold >= self.num_folds:
            raise ValueError(f"fold={self.fold} does not exist: expected 0 to {self.num_folds - 1}")
        if self.fold and self.method != "kfold":
            raise ValueError(
                f"fold={self.fold} has no effect with method={self.method}: expected method=kfold, or fold=0"
            )
        return self


class _Data(_Section):
    model_config = ConfigDict(extra="allow")  # a source's own keys, such as `path`

    name: _FolderName
    source: dict[str, JsonValue]
    resample: int = Field(default=0, ge=0, lt=2**32)
    prepare: _Prepare
    window: _Window
    validation: _Validation
    scaling: Literal["series", "channel", "none"]
    batch_size: int = Field(ge=1)
    eval_batch_size: int = Field(ge=1)
    num_workers: int = Field(ge=0)


class _Model(_Section):
    model_config = ConfigDict(extra="allow")  # each network's own options

    name: _FolderName


class _Optimizer(_Section):
    model_config = ConfigDict(extra="allow")  # each optimiser's own options

    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


class _Optim(_Section):
    optimizer: _Optimizer
    warmup_fraction: float = Field(ge=0, le=1)
    min_lr_ratio: float = Field(ge=0, le=1)
    min_batches_per_epoch: int = Field(default=1, ge=1)


class _Trainer(_Section):
    model_config = ConfigDict(extra="allow")  # Lightning's own options, checked by Lightning

    accelerator: str
    devices: Annotated[int, Field(ge=-1)] | Literal["auto"] | list[int]
    precision: str
    strategy: str | dict[str, JsonValue]
    max_epochs: int = Field(ge=1)
    gradient_clip_val: float | None = Field(ge=0)
    accumulate_grad_batches: int = Field(ge=1)
    log_every_n_steps: int = Field(ge=0)


class _Loss(_Section):
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Literal["none", "balanced"]


class _Augment(_Section):
    shift: float = Field(ge=0, le=1)
    scale: float = Field(ge=0)
    jitter: float = Field(ge=0)
    mixup: float = Field(ge=0)


class _DataPaths(_Section):
    data: str
    cache: str


class _Paths(_DataPaths):
    output: str


class _Train(_Section):
    model_config = ConfigDict(extra="allow")  # groups that a model brings, such as `decomposition`

    data: _Data
    model: _Model
    optim: _Optim
    trainer: _Trainer
    callbacks: dict[str, dict[str, JsonValue] | None] | None
    logger: dict[str, dict[str, JsonValue] | None] | None = None  # absent with logger=[]
    loss: _Loss
    augment: _Augment
    paths: _Paths
    score: Literal["auto", "accuracy", "balanced_accuracy"]
    seed: int = Field(ge=0, lt=2**32)
    force: bool
    compile: bool
    checkpoint_every_n_steps: int | None = Field(default=None, ge=1)


def check_train(config: Mapping[str, Any], *, is_multirun: bool) -> None:
    """Check a plain `train` config.

    Args:
        config: resolved, in plain types.
        is_multirun: whether the job is one of a sweep, whatever launcher runs it.

    Raises:
        UserError: with every problem found.
    """
    problems = _schema_problems(_Train, config)
    problems += target_problems(config)
    if not problems:
        problems += argument_problems(config)
        problems += _cross_problems(config, is_multirun=is_multirun)
    if problems:
        raise UserError(problems)


def data_problems(data: Any) -> list[str]:
    """A line for everything that is wrong with the `data` of a config that was not typed here, as in a checkpoint."""
    return _schema_problems(_DataOnly, {"data": data})


class _DataOnly(_Section):
    data: _Data


class _Inspect(_Section):
    data: _Data
    plot: str | None
    series_per_class: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**32)
    paths: _DataPaths


class _Audit(_Section):
    data: _Data
    output: str
    num_resamples: int = Field(ge=2)
    num_shuffles: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**32)
    paths: _DataPaths


class _Plan(_Section):
    model_config = ConfigDict(extra="allow")  # groups that a model brings

    model: _Model
    data: _Data | None = None
    length: int | None = Field(ge=1)
    num_channels: int = Field(ge=1)
    num_classes: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    paths: _DataPaths


def inspect_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for everything that is wrong with a plain config of the command `data`, where a data set is chosen."""
    problems = _schema_problems(_Inspect, config) + target_problems(config)
    return problems or _unused_data_problems(config) + argument_problems(config)


def audit_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for everything that is wrong with a plain config of the command `audit`."""
    problems = _schema_problems(_Audit, config) + target_problems(config)
    if not problems and config["data"]["resample"]:
        problems = [f"data.resample={config['data']['resample']}: expected 0; the official split is what is audited"]
    return problems or _unused_data_problems(config) + argument_problems(config)


def plan_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for everything that is wrong with a plain config of the command `plan`."""
    problems = _schema_problems(_Plan, config) + target_problems(config) + _unknown_problems(_Plan, config)
    if problems:
        return problems
    return (_unused_data_problems(config) if config.get("data") else []) + argument_problems(config)


def _unknown_problems(schema: type[BaseModel], config: Mapping[str, Any]) -> list[str]:
    known = (*schema.model_fields, *_GROUPS)
    return [
        "suite: expected krontime train -m +suite=NAME, since each of its data sets is a job of a sweep"
        if key == "suite"
        else f"{key}={config[key]!r}: there is no such key"
        for key in config
        if key not in known
    ]


def _unused_data_problems(config: Mapping[str, Any]) -> list[str]:
    source = config["data"]["source"]
    return [
        f"data.{key}={value!r}: has no effect, since {source['_target_']} does not take it"
        for key, value in config["data"].items()
        if key not in _Data.model_fields and key not in source
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


def _cross_problems(config: Mapping[str, Any], *, is_multirun: bool) -> list[str]:
    problems = _unknown_problems(_Train, config) + _unused_data_problems(config)
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
    trainer, default = config["trainer"], OmegaConf.load(config_dir() / "train.yaml")
    assert isinstance(default, DictConfig)
    unused = {
        "compile": (config["compile"], default.compile),
        **{
            f"{group}.{key}": (value, default[group][key])
            for group in ("augment", "loss")
            for key, value in config[group].items()
        },
        "data.window.length": (config["data"]["window"]["length"], None),
        "trainer.accelerator": (trainer["accelerator"], "cpu"),
        "trainer.devices": (trainer["devices"], 1),
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
    target = strategy if isinstance(strategy, str) else str(strategy.get("_target_"))
    if precision not in PRECISIONS:
        reason = ", since attention divides by numbers that are 0 in float16" if precision.startswith("16") else ""
        problems.append(f"trainer.precision={precision!r}: expected {' or '.join(PRECISIONS)}{reason}")
    elif precision != "32-true" and "fsdp" in target.lower():
        problems.append(
            f"trainer.precision={precision!r}: expected 32-true with this strategy, which would round the series and "
            "the constants of the network too"
        )
    if isinstance(strategy, Mapping) and strategy.get("use_orig_params") is False:
        problems.append(
            "trainer.strategy.use_orig_params=False: expected true, since the optimiser's groups (weight decay or not) "
            "are of single parameters"
        )
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
    max_steps = trainer.get("max_steps")
    if isinstance(max_steps, int) and max_steps < 1 and max_steps != -1:
        problems.append(f"trainer.max_steps={max_steps}: expected at least 1, or -1 for no limit")
    for key in ("fast_dev_run", "overfit_batches"):
        if trainer.get(key):
            problems.append(
                f"trainer.{key}={trainer[key]!r}: expected none, since its scores would be recorded as those of a run; "
                "for a short one use trainer.max_epochs=1"
            )
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


def _schema_problems(schema: type[BaseModel], config: Mapping[str, Any]) -> list[str]:
    try:
        schema.model_validate(dict(config))
    except ValidationError as error:
        return _merged(error.errors(include_url=False))
    return []


def _keys_of(error: Any, key: str) -> str:
    """The keys of a section where one value was given for all of it."""
    section = next(it for it in _Section.__subclasses__() if it.__name__ == error["ctx"]["class_name"])
    return " and ".join(f"{key}.{name}" for name in section.model_fields)


def _merged(errors: Sequence[Any]) -> list[str]:
    """One line a key: a value that fits none of several types gives one error for each."""
    lines: dict[str, str] = {}
    for error in errors:
        path = [str(part) for part in error["loc"]]
        while path and (path[-1] in ("int", "constrained-int", "list[int]") or path[-1].startswith("literal[")):
            path.pop()
        key = ".".join(path)
        expected = worded(error["msg"].removeprefix("Value error, "))
        if error["type"] == "value_error":
            lines[key] = f"{key}: {expected}"
        elif error["type"] == "string_pattern_mismatch":
            lines[key] = f"{key}={error['input']!r}: expected a name for a folder, without / or \\ and no dot first"
        elif error["type"] == "missing":
            lines[key] = f"{key}: is missing; expected a value"
        elif error["type"] == "model_type":
            lines[key] = f"{key}={error['input']!r}: expected values for its keys {_keys_of(error, key)}"
        elif error["type"] == "extra_forbidden":
            lines[key] = f"{key}={error['input']!r}: there is no such key"
        elif key in lines:
            lines[key] += f", or {expected}"
        else:
            lines[key] = f"{key}={error['input']!r}: expected {expected}"
    return list(lines.values())
