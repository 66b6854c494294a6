"""From a plain config to the data, the protocol and the module of one run; shared by the verbs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from krontime.training import build
from krontime.training.checkpoint_file import read_checkpoint
from krontime.data.datamodule import ConsecutiveBatches, SeriesDataModule, SeriesDataset
from krontime.data.load import load_data
from krontime.data.normalizer import Normalizer
from krontime.data.series import SeriesBatch, SeriesData, SeriesSpec
from krontime.data.split import Split, split_indices
from krontime.errors import UserError
from krontime.training.augment import Augment
from krontime.training.checkpoint import checksum_problem
from krontime.training.module import FORMAT_VERSION, SeriesClassifier
from krontime.models.read_out import KernelReadOut
from krontime.storage import PREDICTIONS, RECORD
from krontime.runs.record import Protocol, Record, configured_protocol

FIT_SERIES = 128
FIT_POINTS = 2**21
"""Training series that fixed kernels are fitted to, and their values in all, at most."""

READ_OUT_SERIES = 5_000
"""Training series that a read-out in closed form is fitted to, and validation series beside them, at most, since their
features lie in memory together."""

MAX_COUNT = 1_000
"""Most layers, levels, heads or dilations of a model that is read from a checkpoint."""

CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"


@dataclass(frozen=True)
class Experiment:
    """A data set split as a config asks, with what was done to it.

    Attributes:
        data: all series, test included.
        spec: the sizes that the network is built from.
        split: positions of the training, validation and test series.
        protocol: for the record.
    """

    data: SeriesData
    spec: SeriesSpec
    split: Split
    protocol: Protocol

    def batches(self, config: Mapping[str, Any]) -> SeriesDataModule:
        """The data module of a run."""
        options = config["data"]
        return SeriesDataModule(
            data=self.data,
            split=self.split,
            batch_size=options["batch_size"],
            eval_batch_size=options["eval_batch_size"],
            num_workers=options["num_workers"],
            seed=config["seed"],
        )


def prepare(config: Mapping[str, Any]) -> Experiment:
    """Read (or parse) the data set of a plain config and split it.

    Raises:
        UserError: the data cannot be read, or cannot be split as asked.
    """
    options = config["data"]
    data = load_data(config)
    split = split_indices(data, **options["validation"], seed=config["seed"])
    spec = data.spec
    counts = np.bincount(data.labels[split.train], minlength=spec.num_classes)
    configured = configured_protocol(config)
    fit_on = configured["fitted_on"]
    fitted = np.concatenate([split.train, split.validation]) if fit_on == "train_and_validation" else split.train
    assert data.sha256 is not None  # cached data has a checksum
    protocol = Protocol(
        data_sha256=data.sha256,
        split_method=split.protocol["method"],
        fold=split.protocol.get("fold"),
        group=data.group_name if split.protocol["method"] == "group" else None,
        groups_in_train_and_validation=split.protocol.get("groups_in_train_and_validation"),
        groups_in_train_and_test=split.protocol.get("groups_in_train_and_test"),
        num_train=len(split.train),
        num_val=len(split.validation),
        num_test=len(split.test),
        train_class_counts=dict(zip(spec.class_names, counts.tolist(), strict=True)),
        series_length=int(data.lengths[fitted].max()) if fit_on and not data.equal_length else None,
        **configured,
    )
    return Experiment(data=data, spec=spec, split=split, protocol=protocol)


def build_module(config: Mapping[str, Any], spec: SeriesSpec, **extra: Any) -> SeriesClassifier:
    """The untrained module of a plain config, for data of the given sizes.

    Args:
        config: resolved, in plain types.
        spec: sizes of the data.
        extra: further arguments of `SeriesClassifier`.
    """
    augment = config["augment"]
    return SeriesClassifier(
        network=build.network(config, spec),
        normalizer=Normalizer(scaling=config["data"]["scaling"], num_channels=spec.num_channels),
        read_out=build.read_out(config, spec),
        num_classes=spec.num_classes,
        seed=config["seed"],
        augment=Augment(**augment) if any(augment.values()) else None,
        optimizer=build.instantiate(config["optim"]["optimizer"]),
        warmup=config["optim"]["warmup"],
        final=config["optim"]["final"],
        label_smoothing=config["loss"]["label_smoothing"],
        **extra,
    )


def fitted_module(config: Mapping[str, Any], experiment: Experiment) -> SeriesClassifier:
    """The module of a run before its first step: what depends on training data is taken from the training series."""
    split, data = experiment.split, experiment.data
    weights = None
    chosen = config["loss"]["class_weights"]
    if chosen == "balanced" or (chosen == "auto" and experiment.protocol.imbalanced):
        counts = torch.tensor(list(experiment.protocol.train_class_counts.values()), dtype=torch.float32).clamp(min=1)
        weights = counts.sum() / (len(counts) * counts)
    about = {
        "config": dict(config),
        "spec": {**asdict(experiment.spec), "class_names": list(experiment.spec.class_names)},
        "protocol": experiment.protocol.model_dump(mode="json"),
        "masked": SeriesDataset(data).masked,
    }
    module = build_module(config, experiment.spec, class_weights=weights, about=about)
    assert isinstance(module.normalizer, Normalizer)
    module.normalizer.fit(data, split.train)
    most = min(FIT_SERIES, max(1, FIT_POINTS // (data.num_channels * experiment.spec.length)))
    fit_tokens = getattr(module.network, "fit_tokens", None)
    if fit_tokens is not None or module.read_out is not None:
        sample = _sample(split.train, most, config["seed"])
        x, mask, *_ = next(_scaled(module, data, sample, most))
        if fit_tokens is not None:
            with torch.no_grad():
                fit_tokens(x, mask)
        if module.read_out is not None:
            module.read_out.fit_kernels(x, mask)
            _fit_read_out(module, module.read_out, config, experiment)
    return module


def _fit_read_out(
    module: SeriesClassifier, read_out: KernelReadOut, config: Mapping[str, Any], experiment: Experiment
) -> None:
    """Fit a read-out to the training series, and note its logits for the validation series; then fit it to both."""

    def features(indices: np.ndarray) -> Iterator[tuple[torch.Tensor, SeriesBatch]]:
        for batch in _scaled(module, experiment.data, indices, config["data"]["eval_batch_size"]):
            yield read_out.features(batch.x, batch.mask), batch

    train = _sample(experiment.split.train, READ_OUT_SERIES, config["seed"])
    found, labels = [], []
    for part, batch in features(train):
        found.append(part)
        labels.append(batch.y)
    read_out.fit(torch.cat(found), torch.cat(labels), module.class_weights)
    most = READ_OUT_SERIES if read_out.fit_on == "train_and_validation" else 0
    beside = torch.from_numpy(_sample(experiment.split.validation, most, config["seed"]))
    for part, batch in features(experiment.split.validation):
        module.left_out |= dict(zip(batch.index.tolist(), read_out.logits(part), strict=True))
        is_beside = torch.isin(batch.index, beside)
        found.append(part[is_beside])
        labels.append(batch.y[is_beside])
    if most:
        read_out.fit(torch.cat(found), torch.cat(labels), module.class_weights)


def _sample(indices: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of `indices`, drawn by `seed`, rising."""
    return np.sort(np.random.default_rng(seed).permutation(indices)[:most])


def _scaled(module: SeriesClassifier, data: SeriesData, indices: np.ndarray, batch_size: int) -> Iterator[SeriesBatch]:
    """Batches of scaled series."""
    dataset = SeriesDataset(data)
    for positions in ConsecutiveBatches(indices, batch_size=batch_size):
        batch = dataset.__getitems__(positions)
        yield batch._replace(x=module.normalizer(batch.x, batch.mask))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, plain containers and tensors only.

    Raises:
        UserError: the file is missing, damaged, holds anything else, or is of another format version.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    try:
        if problem := checksum_problem(path):
            raise ValueError(problem)
        checkpoint = read_checkpoint(path)
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path}: not a readable checkpoint ({error}); expected one of krontime's, of plain values and tensors"
        ) from error
    about = checkpoint.get("krontime") if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict):
        raise UserError(f"{path}: not a checkpoint of krontime")
    if about.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version={about.get('format_version')!r}: this version of krontime reads {FORMAT_VERSION}"
        )
    return checkpoint


def best_checkpoint(run_dir: Path) -> Path:
    """The checkpoint that validation selected; the last one where nothing selects."""
    best = run_dir / CHECKPOINTS / BEST
    return best if best.is_file() else run_dir / CHECKPOINTS / LAST


def _check_counts(config: Mapping[str, Any]) -> None:
    """Refuse what would be built for ever: no weights are compared before there are layers to hold them."""
    for key, value in build.leaves(config["model"], "model"):
        if key.rpartition(".")[2].startswith("num_") and isinstance(value, int) and value > MAX_COUNT:
            raise UserError(f"{key}={value}: expected at most {MAX_COUNT:,} in a checkpoint")


class Run(NamedTuple):
    """What a finished run left.

    Attributes:
        module: the selected one.
        config: resolved, in plain types.
        spec: sizes of its data.
        masked: whether its batches carried a mask.
    """

    module: SeriesClassifier
    config: dict[str, Any]
    spec: SeriesSpec
    masked: bool


def load_run(run_dir: Path) -> Run:
    """The selected module of a run, and what it was trained on.

    Raises:
        UserError: the folder is no run's, or its checkpoint cannot be read.
    """
    path = best_checkpoint(run_dir)
    if not path.is_file():
        _refuse_reference(run_dir)
        reason = f"there is no {path.relative_to(run_dir)}" if run_dir.is_dir() else "there is no such folder"
        raise UserError(f"run={str(run_dir)!r}: expected the folder of a finished run ({reason})")
    checkpoint = load_checkpoint(path)
    about = checkpoint["krontime"]
    try:
        _check_counts(about["config"])
        spec = SeriesSpec(**{**about["spec"], "class_names": tuple(about["spec"]["class_names"])})
        with torch.device("meta"):  # sizes are compared before there is memory for them
            build_module(about["config"], spec).load_state_dict(checkpoint["state_dict"], assign=True)
        module = build_module(about["config"], spec)
        module.load_state_dict(checkpoint["state_dict"])
        run = Run(module=module.eval(), config=about["config"], spec=spec, masked=about["masked"])
    except UserError as error:
        raise UserError(f"{path}: {problem}" for problem in error.problems) from error
    except Exception as error:  # whatever values lead to that no training wrote
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{path}: its parts do not fit together ({reason})") from error
    return run


def _refuse_reference(run_dir: Path) -> None:
    """Say what a run of a reference classifier left instead of weights.

    Raises:
        UserError: the folder is one of a reference classifier.
    """
    if (run_dir / RECORD).is_file() and build.is_reference(Record.read(run_dir / RECORD).config):
        raise UserError(
            f"run={str(run_dir)!r}: expected the run of a network; a reference classifier is not kept, since aeon's "
            f"can only be stored as pickle (its scores are in {RECORD}, its test predictions in {PREDICTIONS})"
        )
