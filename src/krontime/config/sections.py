"""Types and bounds of the keys of a config, section by section: each stands here once."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator


class Section(BaseModel):
    """A part of a config: no unknown keys, no silent conversion of text to numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


FolderName = Annotated[str, Field(min_length=1, pattern=r"^[^/\\.][^/\\]*$")]
"""What a run folder can be named after."""


class Prepare(Section):
    resample_hz: float | None = Field(gt=0)
    resample_length: int | None = Field(ge=2)
    crop_length: int | None = Field(ge=1)
    crop_from: Literal["start", "center", "end"]

    @model_validator(mode="after")
    def _one_way_to_resample(self) -> "Prepare":
        if self.resample_hz is not None and self.resample_length is not None:
            raise ValueError(
                f"resample_length={self.resample_length}: expected null where resample_hz is set (or the reverse)"
            )
        return self


class Window(Section):
    length: int | None = Field(ge=1)
    stride: int | None = Field(ge=1)

    @model_validator(mode="after")
    def _stride_fits(self) -> "Window":
        if self.stride is not None and self.length is None:
            raise ValueError("stride has no effect without length")
        if self.stride is not None and self.length is not None and self.stride > self.length:
            raise ValueError(f"stride={self.stride} would skip points between windows of length={self.length}")
        return self


class Validation(Section):
    method: Literal["auto", "given", "stratified", "group", "kfold"]
    fraction: float = Field(gt=0, lt=1)
    num_folds: int = Field(ge=2)
    fold: int = Field(ge=0)
    max_train: int | None = Field(default=None, ge=2)

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

    name: FolderName
    source: dict[str, JsonValue]
    resample: int = Field(default=0, ge=0, lt=2**32)
    prepare: Prepare
    window: Window
    validation: Validation
    scaling: Literal["series", "channel", "none"]
    batch_size: int = Field(ge=1)
    eval_batch_size: int = Field(ge=1)
    num_workers: int = Field(ge=0)


class Model(Section):
    model_config = ConfigDict(extra="allow")  # each network's own options

    name: FolderName


class Optimizer(Section):
    model_config = ConfigDict(extra="allow")  # each optimiser's own options

    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


class Optim(Section):
    optimizer: Optimizer
    warmup_fraction: float = Field(ge=0, le=1)
    min_lr_ratio: float = Field(ge=0, le=1)
    min_batches_per_epoch: int = Field(default=1, ge=1)


class Trainer(Section):
    model_config = ConfigDict(extra="allow")  # Lightning's own options, checked by Lightning

    accelerator: str
    devices: Annotated[int, Field(ge=-1)] | Literal["auto"] | list[int]
    precision: str
    strategy: str | dict[str, JsonValue]
    max_epochs: int = Field(ge=1)
    gradient_clip_val: float | None = Field(ge=0)
    accumulate_grad_batches: int = Field(ge=1)
    log_every_n_steps: int = Field(ge=0)


class Loss(Section):
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Literal["none", "balanced"]


class Augment(Section):
    shift: float = Field(ge=0, le=1)
    scale: float = Field(ge=0)
    jitter: float = Field(ge=0)
    mixup: float = Field(ge=0)


class DataPaths(Section):
    data: str
    cache: str


class Paths(DataPaths):
    output: str


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
    score: Literal["auto", "accuracy", "balanced_accuracy"]
    seed: int = Field(ge=0, lt=2**32)
    force: bool
    compile: bool
    checkpoint_every_n_steps: int | None = Field(default=None, ge=1)


class DataOnly(Section):
    data: Data


class Inspect(Section):
    data: Data
    plot: str | None
    series_per_class: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**32)
    paths: DataPaths


class Audit(Section):
    data: Data
    output: str
    num_resamples: int = Field(ge=2)
    num_shuffles: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**32)
    paths: DataPaths


class Plan(Section):
    model_config = ConfigDict(extra="allow")  # groups that a model brings

    model: Model
    data: Data | None = None
    length: int | None = Field(ge=1)
    num_channels: int = Field(ge=1)
    num_classes: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    paths: DataPaths
