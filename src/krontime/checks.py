"""All problems of a config in one error, before anything is built or read."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from krontime.build import target_problems
from krontime.errors import UserError
from krontime.results.record import METRICS


class _Section(BaseModel):
    """A part of a config: no unknown keys, no silent conversion of text to numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Prepare(_Section):
    resample_hz: float | None = Field(gt=0)
    resample_length: int | None = Field(ge=2)
    crop_length: int | None = Field(ge=1)
    crop_from: Literal["start", "center", "end"]


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
    method: Literal["auto", "stratified", "group", "kfold"]
    fraction: float = Field(gt=0, lt=1)
    num_folds: int = Field(ge=2)
    fold: int = Field(ge=0)

    @model_validator(mode="after")
    def _fold_exists(self) -> "_Validation":
        if self.fold >= self.num_folds:
            raise ValueError(f"fold={self.fold} does not exist: expected 0 to {self.num_folds - 1}")
        return self


class _Data(_Section):
    model_config = ConfigDict(extra="allow", strict=True)  # a source's own keys, such as `path`

    name: str = Field(min_length=1, pattern=r"^[^/\\]+$")
    source: dict[str, JsonValue]
    prepare: _Prepare
    window: _Window
    validation: _Validation
    scaling: Literal["series", "channel", "none"]
    batch_size: int = Field(ge=1)
    eval_batch_size: int = Field(ge=1)
    num_workers: int = Field(ge=0)


class _Model(_Section):
    model_config = ConfigDict(extra="allow", strict=True)  # each network's own options

    name: str = Field(min_length=1)


class _Optim(_Section):
    optimizer: dict[str, JsonValue]
    warmup: float = Field(ge=0, le=1)
    final: float = Field(ge=0, le=1)


class _Trainer(_Section):
    model_config = ConfigDict(extra="allow", strict=True)  # Lightning's own options, checked by Lightning

    devices: int | Literal["auto"] | list[int]
    max_epochs: int = Field(ge=1)


class _Loss(_Section):
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Literal["none", "balanced"]


class _Augment(_Section):
    shift: float = Field(ge=0, le=1)
    scale: float = Field(ge=0)
    jitter: float = Field(ge=0)
    mixup: float = Field(ge=0)


class _Paths(_Section):
    output: str
    data: str
    cache: str


class _Train(_Section):
    model_config = ConfigDict(extra="allow", strict=True)  # groups that a model brings, such as `decomposition`

    data: _Data
    model: _Model
    optim: _Optim
    trainer: _Trainer
    callbacks: dict[str, dict[str, JsonValue] | None] | None
    logger: dict[str, dict[str, JsonValue] | None] | None
    loss: _Loss
    augment: _Augment
    paths: _Paths
    seed: int = Field(ge=0, lt=2**32)
    force: bool
    compile: bool


def check_train(config: Mapping[str, Any], *, is_multirun: bool) -> None:
    """Check a plain `train` config.

    Args:
        config: resolved, in plain types.
        is_multirun: whether this process runs several jobs one after the other.

    Raises:
        UserError: with every problem found.
    """
    problems = _schema_problems(_Train, config)
    problems += target_problems(config)
    if not problems:
        problems += _cross_problems(config, is_multirun=is_multirun)
    if problems:
        raise UserError(problems)


def _cross_problems(config: Mapping[str, Any], *, is_multirun: bool) -> list[str]:
    problems = []
    devices = config["trainer"]["devices"]
    if is_multirun and devices != 1:
        problems.append(
            f"trainer.devices={devices}: several devices in one process of a multirun would train different jobs on "
            "each; expected trainer.devices=1, or one command for each job"
        )
    names = [f"val/{name}" for name in METRICS]
    for name, options in (config["callbacks"] or {}).items():
        monitored = (options or {}).get("monitor")
        if monitored is not None and monitored not in [*names, "train/loss"]:
            problems.append(f"callbacks.{name}.monitor={monitored!r}: expected one of {', '.join(names)}")
    return problems


def _schema_problems(schema: type[BaseModel], config: Mapping[str, Any]) -> list[str]:
    try:
        schema.model_validate(dict(config))
    except ValidationError as error:
        return _merged(error.errors(include_url=False))
    return []


def _merged(errors: Sequence[Any]) -> list[str]:
    """One line a key: a value that fits none of several types gives one error for each."""
    lines: dict[str, str] = {}
    for error in errors:
        path = [str(part) for part in error["loc"]]
        while path and (path[-1] in ("int", "list[int]") or path[-1].startswith("literal[")):
            path.pop()
        key = ".".join(path)
        expected = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if error["type"] == "value_error":
            lines[key] = f"{key}: {expected}"
        elif key in lines:
            lines[key] += f", or {expected}"
        else:
            lines[key] = f"{key}={error['input']!r}: expected {expected}"
    return list(lines.values())


def explain_override_errors(verb: str, overrides: Sequence[str], error: Exception) -> list[str]:
    """Every override that Hydra refuses, not only the first; each with the nearest names that exist.

    Args:
        verb: whose config they were given to.
        overrides: as typed.
        error: what composing them all gave.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from krontime.configs import config_dir, options

    GlobalHydra.instance().clear()
    plain = [override for override in overrides if not override.startswith("-")]
    groups = [o for o in plain if (config_dir() / o.partition("=")[0].lstrip("+~")).is_dir()]
    problems = []
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        for override in plain:
            key, _, value = override.partition("=")
            rest = [] if override in groups else [o for o in groups if "," not in o]
            if "," in value:
                continue  # a sweep's list: each value is checked when its job runs
            try:
                compose(verb, [*rest, override])
            except (HydraException, OmegaConfBaseException) as alone:
                problems.append(_explained(override, alone, options(key.lstrip("+~"))))
    if problems:
        return problems
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    return [line for line in f"{error}{cause}".splitlines() if line.strip()][:1] or [repr(error)]


def _explained(override: str, error: Exception, choices: list[str]) -> str:
    key, _, value = override.partition("=")
    if choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{override}: expected {key} to be one of {', '.join(choices)}{hint}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = str(error.__cause__).splitlines()[0] if error.__cause__ else ""
    return f"{override}: {lines[0]}" + (f" {cause}" if cause and cause not in lines[0] else "")
