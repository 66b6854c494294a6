"""Types, bounds and meaning of the keys of a config, section by section: each stands here once.

The configs say the meaning too, in a comment beside each key; a test holds the two together.
"""

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A part of a config: no unknown keys, no silent conversion of text to numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


FolderName = Annotated[str, Field(min_length=1, pattern=r"^[^/\\.][^/\\]*$")]
"""What a run folder can be named after."""


class Prepare(Section):
    resample_hz: float | None = Field(
        gt=0, description="new sampling rate in Hz, where the data's own is known; null: as it is"
    )
    resample_length: int | None = Field(
        ge=2, description="new number of time points, the same for every series; null: as it is"
    )
    crop_length: int | None = Field(ge=1, description="keep at most this many time points, after resampling; null: all")
    crop_from: Literal["start", "center", "end"] = Field(description="part to keep when cropping: start | center | end")

    @model_validator(mode="after")
    def _one_way_to_resample(self) -> "Prepare":
        if self.resample_hz is not None and self.resample_length is not None:
            raise ValueError(
                f"resample_length={self.resample_length}: expected null where resample_hz is set (or the reverse)"
            )
        return self


class Window(Section):
    length: int | None = Field(
        ge=1,
        description="cut each series into windows of this many points; null: whole series",
    )
    stride: int | None = Field(
        ge=1, description="points from one window's start to the next; null: window.length (no overlap)"
    )
    label: Literal["majority", "any", "start", "center", "end"] | None = Field(
        default=None,
        description="null: a series' logits are the mean over its windows | majority | any | start | center | end: "
        "each window is a series with a class of its own, by that rule",
    )
    min_overlap: float = Field(
        default=0.0, ge=0, le=1, description="fraction of a window that its class has to cover, where label is set"
    )
    unlabelled: str | None = Field(
        default=None,
        min_length=1,
        description="name of a class of the windows without one, where label is set; null: left out",
    )

    @model_validator(mode="after")
    def _stride_fits(self) -> "Window":
        if self.label is not None and self.length is None:
            raise ValueError(f"label={self.label!r} has no effect without length")
        if self.label is None and (self.min_overlap or self.unlabelled is not None):
            raise ValueError("min_overlap and unlabelled have no effect without label")
        if self.stride is not None and self.length is None:
            raise ValueError("stride has no effect without length")
        if self.label is None and self.stride and self.length and self.stride > self.length:
            raise ValueError(f"stride={self.stride} would skip points between windows of length={self.length}")
        return self


class Validation(Section):
    method: Literal["auto", "given", "stratified", "group", "kfold", "time"] = Field(
        description=(
            "auto (given where the source has a validation part; group where the data has groups, and "
            "test has groups of its own; else stratified) | given | stratified | group | kfold | "
            "time (the end of each recording)"
        )
    )
    fraction: float = Field(
        gt=0, lt=1, description="fraction of the training split that validates (stratified, group, time)"
    )
    num_folds: int = Field(ge=2, description="number of folds (kfold)")
    fold: int = Field(ge=0, description="which fold validates, from 0 (kfold)")
    max_train: int | None = Field(
        default=None, ge=2, description="keep at most so many series to train on, classes in proportion; null: all"
    )

    @model_validator(mode="after")
    def _fold_exists(self) -> "Validation":
        if self.fold >= self.num_folds:
            raise ValueError(f"fold={self.fold} does not exist: expected 0 to {self.num_folds - 1}")
        if self.fold and self.method != "kfold":
            raise ValueError(
                f"fold={self.fold} has no effect with method={self.method}: expected method=kfold, or fold=0"
            )
        return self


class Data(Section):
    model_config = ConfigDict(extra="allow")  # a source's own keys, such as `path`

    name: FolderName = Field(
        description=(
            "of the data set, in folder names and records; from the file's or folder's name unless given;"
            " data=ucr takes that of the archive, such as ACSF1 or GunPoint"
        )
    )
    source: dict[str, JsonValue]
    resample: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description=(
            "0: the official split | k of 1 and more: another one, that of aeon with seed k, or of whole "
            "groups where there are groups"
        ),
    )
    prepare: Prepare
    window: Window
    validation: Validation
    scaling: Literal["series", "channel", "none"] = Field(
        description="series (each to mean 0, deviation 1) | channel (statistics of the training series) | none"
    )
    batch_size: int = Field(ge=1, description="training series in a batch, on each device")
    eval_batch_size: int = Field(ge=1, description="series in a batch when validating, testing and predicting")
    num_workers: int = Field(
        ge=0,
        description="processes that gather batches; 0: the training process itself, which is fastest for mapped data",
    )


class Model(Section):
    model_config = ConfigDict(extra="allow")  # each network's own options

    name: FolderName = Field(description="in records and tables")


class Optimizer(Section):
    model_config = ConfigDict(extra="allow")  # each optimiser's own options

    lr: float = Field(gt=0, description="peak learning rate")
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="decoupled weight decay, on what has two dimensions or more: not on biases and norms",
    )


class Optim(Section):
    optimizer: Optimizer
    warmup_fraction: float = Field(
        ge=0, le=1, description="fraction of the steps over which the learning rate rises from zero"
    )
    min_lr_ratio: float = Field(ge=0, le=1, description="learning rate at the last step over the peak")
    min_batches_per_epoch: int = Field(
        default=1,
        ge=1,
        description="an epoch passes over the training series as often as so many batches take; 1 for one pass",
    )


class Trainer(Section):
    model_config = ConfigDict(extra="allow")  # Lightning's own options, checked by Lightning

    accelerator: str = Field(description="cpu | gpu")
    devices: Annotated[int, Field(ge=-1)] | Literal["auto"] | list[int] = Field(description="how many; -1 for all")
    precision: str = Field(description="32-true | bf16-mixed")
    strategy: str | dict[str, JsonValue] = Field(description="how devices share the work")
    max_epochs: int = Field(
        ge=1, description="maximum number of epochs; the learning rate comes to its end with the last"
    )
    gradient_clip_val: float | None = Field(ge=0, description="largest norm of the gradient")
    accumulate_grad_batches: int = Field(ge=1, description="batches for each optimiser step")
    log_every_n_steps: int = Field(ge=0, description="optimiser steps between two logged losses")


class Loss(Section):
    label_smoothing: float = Field(ge=0, lt=1, description="fraction of the target spread over all classes")
    class_weights: Literal["none", "balanced", "sampled"] = Field(
        description=(
            "none | balanced (the training loss weighs each class by the inverse of its fraction of the training "
            "series) | sampled (training batches draw all classes equally often instead)"
        )
    )


class Augment(Section):
    shift: float = Field(ge=0, le=1, description="largest circular shift, as a fraction of the length")
    scale: float = Field(ge=0, description="standard deviation of a random factor on the amplitude")
    jitter: float = Field(ge=0, description="standard deviation of noise added to the scaled series")
    mixup: float = Field(ge=0, description="alpha of the beta distribution that mixes pairs of series; 0 for none")


class DataPaths(Section):
    data: str = Field(description="folder of the data files that the named data sets are read from")
    cache: str = Field(description="parsed data sets; KRONTIME_CACHE in the environment, else a folder of the user's")


class Paths(DataPaths):
    output: str = Field(description="where run folders go")


class Train(Section):
    model_config = ConfigDict(extra="allow")  # groups that a model brings, such as `decomposition`

    data: Data
    model: Model
    optim: Optim
    trainer: Trainer
    callbacks: dict[str, dict[str, JsonValue] | None] | None
    logger: dict[str, dict[str, JsonValue] | None] | None = None  # absent with logger=[]
    loss: Loss
    augment: Augment
    paths: Paths
    score: Literal["auto", "accuracy", "balanced_accuracy"] = Field(
        description=(
            "what the run is judged by, and how classes are decided: accuracy | balanced_accuracy | auto "
            "(balanced where one class has twice another's series)"
        )
    )
    seed: int = Field(
        ge=0, lt=2**32, description="of initialisation, batch order, augmentation and the validation split"
    )
    force: bool = Field(
        description="run again though a finished run of this config exists; the old folder is kept under another name"
    )
    compile: bool = Field(description="torch.compile the network")
    checkpoint_every_n_steps: int | None = Field(
        default=None, ge=1, description="optimiser steps between checkpoints within an epoch; null for one an epoch"
    )


class DataOnly(Section):
    data: Data


class Inspect(Section):
    data: Data
    plot: str | None = Field(description="PNG file for a plot of a few series of each class")
    series_per_class: int = Field(ge=1, description="series of each class in the plot")
    seed: int = Field(ge=0, lt=2**32, description="of the validation split shown")
    paths: DataPaths


class Audit(Section):
    data: Data
    output: str = Field(description="Markdown file for the page")
    num_resamples: int = Field(ge=2, description="resamples that the official split is compared with, 1 and more")
    num_shuffles: int = Field(
        ge=1, description="times that the training labels are shuffled, for the control that must be at chance"
    )
    seed: int = Field(ge=0, lt=2**32, description="of the kernels, the fixed permutation and the shuffles")
    paths: DataPaths


class Plan(Section):
    model_config = ConfigDict(extra="allow")  # groups that a model brings

    model: Model
    data: Data | None = None
    length: int | None = Field(ge=1, description="time points of a series, when no data set is given")
    num_channels: int = Field(ge=1, description="channels of a series, when no data set is given")
    num_classes: int = Field(ge=1, description="classes, when no data set is given")
    batch_size: int = Field(ge=1, description="series in a batch")
    epoch: bool = Field(
        description="train for a few steps too, and say how long an epoch takes on this machine's CPU; with data=NAME"
    )
    seed: int = Field(ge=0, lt=2**32, description="of the validation split and of the order of those steps")
    paths: DataPaths


def leaf_fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key below a section, dotted, that holds a value and no further section, with its field."""
    for name, field in section.model_fields.items():
        below = [member for member in members(field.annotation) if _is_section(member)]
        for member in below:
            yield from leaf_fields(member, f"{prefix}{name}.")
        if not below:
            yield f"{prefix}{name}", field


def members(annotation: Any) -> set[Any]:
    """The types of a union; the type itself where it is none."""
    if typing.get_origin(annotation) is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return set().union(*(members(member) for member in typing.get_args(annotation)))
    return {annotation} if isinstance(annotation, type) else {object}


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
