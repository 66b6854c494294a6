"""Defines the record: the one JSON file that a finished run leaves, checked on writing and on reading.

Every number in a table comes from here, so a record that contradicts itself (an edited config, another seed,
no score) is refused rather than averaged in.
"""

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from krontime.config.identity import config_hash, plain_json, without_folders
from krontime.errors import UserError
from krontime.metrics import MetricName, StatedScore
from krontime.runs.record_migration import READABLE, SCHEMA_VERSION, migrated
from krontime.storage import replacing

LimitedBy = Literal["epochs", "steps", "seconds"]
"""What the number of a run's optimiser steps comes from: `max_epochs`, `max_steps` or `max_time` of `trainer`."""

_ROUNDING = 1e-3  # scores are computed in float32


def _none_unless_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Status(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    INTERRUPTED = "interrupted"


class _Strict(BaseModel):
    """Base of models without unknown keys, silent conversions or changes after construction."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Protocol(_Strict):
    """How the data was split, prepared, normalised and selected on.

    Attributes:
        data_sha256: of the parsed data set, train and test in their official split.
        resample: which split into train and test: 0 the official one, 1 and more a resample.
        resampled_by: `stratified` (aeon's resample, by class) or `group` (whole groups); None for the official split.
        split_method: how validation was carved from train: `given`, `stratified`, `group`, `kfold` or `time`.
        split_seed: seed of that split.
        fold: which fold was validation, for `kfold`.
        group: what must not straddle the split (speaker, patient), or None.
        groups_in_train_and_validation: how many groups have series in both, where the data has groups.
        groups_in_train_and_test: the same for test against train and validation together.
        num_train, num_val, num_test: series in each part; no test series where the data has no test split.
        num_test_cropped: test series that were longer than any training or validation series, and read as far as the
            longest of those.
        train_class_counts: training series of each class, by class name.
        score: what the run is judged by, and how classes are decided: the most probable one for `accuracy`, the one
            whose probability exceeds its training frequency most for `balanced_accuracy`; None in older records.
        selection_metric: validation metric that chose the checkpoint; None where nothing was selected.
        fitted_on: `train` or `train_and_validation`, for a reference classifier, which selects nothing on validation;
            None for a network.
        series_length: points that each series was cut or padded to (with zeros, after scaling), for a reference
            classifier on series of unequal length; None where each kept its own.
        scaling: `per_series`, `per_channel` or `none`.
        preparation: options that changed the series before scaling (resampling, cropping); empty for none.
        windowing: options of the cut into windows; None where whole series were used.
    """

    data_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    resample: NonNegativeInt = 0
    resampled_by: Literal["stratified", "group"] | None = None
    split_method: Annotated[str, Field(min_length=1)]
    split_seed: int
    fold: NonNegativeInt | None = None
    group: str | None = None
    groups_in_train_and_validation: NonNegativeInt | None = None
    groups_in_train_and_test: NonNegativeInt | None = None
    num_train: NonNegativeInt
    num_val: NonNegativeInt
    num_test: NonNegativeInt
    num_test_cropped: NonNegativeInt = 0
    train_class_counts: dict[str, NonNegativeInt]
    score: StatedScore | None = None
    selection_metric: str | None
    fitted_on: Literal["train", "train_and_validation"] | None = None
    series_length: Annotated[int, Field(ge=1)] | None = None
    scaling: Annotated[str, Field(min_length=1)]
    preparation: dict[str, JsonValue] = {}
    windowing: dict[str, JsonValue] | None = None

    @property
    def imbalanced(self) -> bool:
        """Whether the largest training class has at least twice the series of the smallest."""
        counts = self.train_class_counts.values()
        return bool(counts) and max(counts) >= 2 * min(counts)

    @property
    def prior(self) -> list[float]:
        """What probabilities are divided by before a class is decided; see `decide`."""
        counts = [max(1, count) for count in self.train_class_counts.values()]
        if self.score != "balanced_accuracy":
            counts = [1] * len(counts)
        return [count / sum(counts) for count in counts]


Score = Annotated[FiniteFloat | None, BeforeValidator(_none_unless_finite)]
"""A finite number; what is not defined (AUROC with a class missing from the split: NaN) is stored as None."""


class Metrics(_Strict):
    """Scores of the selected checkpoint on each split; empty where the run did not get there.

    Attributes:
        val, test: by metric.
        recordings: of the same windows as `test`, or as `val` without a test split, gathered by recording; empty where
            series are no windows of recordings, or a recording has windows of several classes.
        accuracy_over_time: of the labelled time of these recordings that windows cover, the fraction that is predicted
            right; likewise None.
    """

    val: dict[MetricName, Score] = {}
    test: dict[MetricName, Score] = {}
    recordings: dict[MetricName, Score] = {}
    accuracy_over_time: Score = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value or name in ("val", "test")}

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        problems = []
        for split, scores in (("val", self.val), ("test", self.test), ("recordings", self.recordings)):
            for name, score in scores.items():
                highest = math.inf if name == "nll" else 1 + _ROUNDING
                if score is not None and not -_ROUNDING <= score <= highest:
                    problems.append(f"{split}.{name} is {score}, out of its range")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Device(_Strict):
    """Where a run was computed.

    Attributes:
        kind: `cpu`, `cuda`, or what torch calls the accelerator.
        name: model of the processor or accelerator.
        count: number of them in use.
        num_threads: CPU threads that torch used in one process.
        platform: operating system and architecture.
    """

    kind: str
    name: str
    count: Annotated[int, Field(ge=1)] = 1
    num_threads: Annotated[int, Field(ge=1)]
    platform: str


class GitState(_Strict):
    """Commit of the checkout that ran; `dirty` where `src` or `configs` differed from it or had new files."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]
    dirty: bool

    @property
    def short(self) -> str:
        """The commit as tables name it."""
        return self.commit[:7] + (" with changes" if self.dirty else "")


class Record(_Strict):
    """The settings, results and costs of one run.

    Attributes:
        schema_version: of this file format.
        status: how the run ended.
        model: config name of the model.
        data: name of the data set.
        seed: of the run.
        config: the resolved config, plain types only.
        config_hash: `config_hash(config)`; checked.
        protocol: None where a run failed before its data was split.
        metrics: scores on `val` and `test`; a completed run on data with a test split has its
            test accuracy.
        num_parameters: trainable and fixed parameters; None where there is no such count.
        num_steps: optimiser steps that were done; None for what has none, and in files of older versions.
        max_steps: optimiser steps that there were to be, which the schedule was made for; likewise.
        limited_by: what `max_steps` comes from; likewise.
        train_time_s: wall-clock seconds of fitting.
        train_cpu_s: processor seconds of the same, over all threads: what the machine did beside it is no part of it.
            None for several processes, and in files of older versions.
        warm_up_s: wall-clock seconds of compiling before it; None for what compiles nothing then, and in files of older
            versions, where it was part of fitting.
        part_times_s: wall-clock seconds of `reading` the data, of fitting the `closed_form` and the `network` (or the
            `classifier`), and of `scoring`, predictions and plots included; empty in files of older versions.
        peak_memory_bytes: see `krontime.runs.memory`.
        memory_of: whether that is what the `process` held at most, libraries and what ran before included, as in files
            of older versions, or what the `job` took beyond it.
        inference_ms_per_series: wall-clock milliseconds of classifying the test split in batches, reading included,
            over its number of series; None without one, and where the file is from before it was measured.
        device: where it ran.
        versions: of the interpreter and the packages that can change a number.
        git: state of the checkout, None for an installed package.
        started_at: with time zone.
        finished_at: with time zone; None where the run was cut off.
        error: message of a failed run; None for a completed one.
    """

    schema_version: Literal[3] = SCHEMA_VERSION
    status: Status
    model: Annotated[str, Field(min_length=1)]
    data: Annotated[str, Field(min_length=1)]
    seed: int
    config: Annotated[dict[str, JsonValue], BeforeValidator(plain_json)]
    config_hash: str
    protocol: Protocol | None
    metrics: Metrics
    num_parameters: NonNegativeInt | None
    num_steps: NonNegativeInt | None = None
    max_steps: NonNegativeInt | None = None
    limited_by: LimitedBy | None = None
    train_time_s: Annotated[FiniteFloat, Field(ge=0)] | None
    train_cpu_s: Annotated[FiniteFloat, Field(ge=0)] | None = None
    warm_up_s: Annotated[FiniteFloat, Field(ge=0)] | None = None
    part_times_s: dict[str, Annotated[FiniteFloat, Field(ge=0)]] = {}
    peak_memory_bytes: NonNegativeInt | None
    memory_of: Literal["process", "job"] = "process"
    inference_ms_per_series: Annotated[FiniteFloat, Field(ge=0)] | None = None
    device: Device
    versions: dict[str, str]
    git: GitState | None
    started_at: AwareDatetime
    finished_at: AwareDatetime | None
    error: str | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        problems = []
        if self.config_hash != (expected := config_hash(self.config)):
            problems.append(f"config_hash is {self.config_hash!r} but the config's hash is {expected!r}")
        if (configured := self.config.get("seed")) not in (None, self.seed):
            problems.append(f"seed is {self.seed} but config.seed is {configured!r}")
        for key, named in (("model", self.model), ("data", self.data)):
            options = self.config.get(key)
            if isinstance(options, dict) and (configured := options.get("name")) not in (None, named):
                problems.append(f"{key} is {named!r} but config.{key}.name is {configured!r}")
        if self.protocol is not None:
            problems += _contradictions(self.protocol, self.config)
        if self.finished_at is not None and self.finished_at < self.started_at:
            problems.append("finished_at is before started_at")
        if self.status is Status.COMPLETED:
            missing = [name for name in ("protocol", "train_time_s", "finished_at") if getattr(self, name) is None]
            scored = self.protocol is None or self.protocol.num_test > 0
            if scored and self.metrics.test.get("accuracy") is None:
                missing.append("metrics.test.accuracy")
            problems += [f"a completed run needs {name}" for name in missing]
            if self.error is not None:
                problems.append("a completed run has no error")
        elif self.error is None:
            problems.append(f"a run with status {self.status} needs its error message")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check the record in `path`.

        Raises:
            UserError: the file is missing, or its text is no record (see `parse`); names the file.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # ValueError: broken UTF-8
            raise UserError(f"{path}: not a readable record ({error})") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, place: str) -> Self:
        """Check the record in a JSON text, and bring it to the present schema.

        Args:
            text: one JSON object.
            place: file or URL of the text, for messages.

        Raises:
            UserError: it is no JSON, of a schema version that is not known, or has wrong fields; names the place and
                every wrong field.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not a readable record ({error})") from error
        if not isinstance(content, dict):
            raise UserError(f"{place}: not a record (the file holds no JSON object)")
        version = content.get("schema_version")
        if type(version) is not int or version not in READABLE:
            known = ", ".join(map(str, READABLE))
            raise UserError(f"{place}: schema_version={version!r}: this version of krontime reads {known}")
        try:
            return cls.model_validate_json(json.dumps(migrated(content)))
        except ValidationError as error:
            raise UserError(_problem_lines(place, error)) from error
        except ValueError as error:
            raise UserError(f"{place}: {error}") from error

    def write(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def published(self) -> Self:
        """Copy the record without the folders of the machine that it was made on; its config's hash stays."""
        return self.model_copy(update={"config": without_folders(self.config)})


def configured_protocol(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run's protocol that its config alone decides, as far as the config has their keys."""
    data, model = (_mapping(config, key) for key in ("data", "model"))
    fields = {"split_seed": config["seed"]} if config.get("seed") is not None else {}
    if "resample" in data:
        fields["resample"] = data["resample"]
    if "scaling" in data:
        fields["scaling"] = data["scaling"]
    if prepare := _mapping(data, "prepare"):
        fields["preparation"] = {
            key: value
            for key, value in prepare.items()
            if value is not None and (key != "crop_from" or prepare.get("crop_length"))
        }
    if window := _mapping(data, "window"):
        fields["windowing"] = _windowing(window) if window.get("length") else None
    if model:
        fields["fitted_on"] = model.get("fit_on")  # which references have
    if config.get("score", "auto") != "auto":
        fields["score"] = config["score"]
    if "callbacks" in config:
        monitor = _mapping(_mapping(config, "callbacks"), "checkpoint").get("monitor")
        fields["selection_metric"] = None if model.get("fit_on") or "_target_" not in model else monitor
    return fields


def _windowing(window: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the cut into windows that have an effect."""
    if window.get("label") is None:
        return {key: value for key, value in window.items() if key in ("length", "stride")}
    return dict(window)


def _contradictions(protocol: Protocol, config: Mapping[str, Any]) -> list[str]:
    """List where a protocol differs from what the config beside it makes."""
    expected = configured_protocol(config)
    if validation := _mapping(_mapping(config, "data"), "validation"):
        if (method := validation.get("method", "auto")) != "auto":
            expected["split_method"] = method
        expected["fold"] = validation.get("fold", 0) if protocol.split_method == "kfold" else None
        if isinstance(max_train := validation.get("max_train"), int):
            expected["num_train"] = min(max_train, protocol.num_train)
    problems = [
        f"protocol.{name} is {recorded!r} but the config gives {value!r}"
        for name, value in expected.items()
        if (recorded := getattr(protocol, name)) != value
    ]
    if (protocol.resample == 0) != (protocol.resampled_by is None):
        problems.append(f"protocol.resample is {protocol.resample} but resampled_by {protocol.resampled_by!r}")
    return problems


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the value of a key where it is a mapping, else an empty one."""
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def _problem_lines(place: str, error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "record"
        lines.append(f"{place}: {where}: {problem['msg'].removeprefix('Value error, ')}")
    return lines
