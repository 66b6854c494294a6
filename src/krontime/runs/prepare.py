"""Makes the data and the protocol of one run from a plain config."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from krontime.config.targets import instantiate, naming_keys
from krontime.data.cache import cache_errors, load_cached, look_for_copies, with_checksum
from krontime.data.copies import copies_among
from krontime.data.prepare import Prepare
from krontime.data.resample import resample_method, resampled
from krontime.data.series import HeldOut, SeriesData, SeriesSpec
from krontime.data.split import Split, blocks_of_time, split_indices
from krontime.data.stores import local_copies
from krontime.data.summary import what_was_read
from krontime.data.windows import cut_as
from krontime.metrics import StatedScore
from krontime.runs.record import Protocol, configured_protocol
from krontime.runs.signals import is_first_rank
from krontime.storage import expanded

if TYPE_CHECKING:
    from krontime.data.datamodule import SeriesDataModule
    from krontime.models.kernel_ridge.ridge import Groups

log = logging.getLogger(__name__)

_MAY_BE_FOLDERS = ("path", "train", "test")
"""Arguments of sources that name folders, too."""


@dataclass(frozen=True)
class PreparedData:
    """A data set split as a config asks, with what was done to it.

    Attributes:
        data: all series, test included; of a test series that is longer than any other, no more is read.
        spec: the sizes that the network is built from.
        split: positions of the training, validation and test series.
        protocol: for the record.
    """

    data: SeriesData
    spec: SeriesSpec
    split: Split
    protocol: Protocol

    @cached_property
    def masked(self) -> bool:
        """Whether batches of training and of validation series have a mask: test series do not change it."""
        return self.data.needs_mask(np.concatenate([self.split.train, self.split.validation]))

    def masked_for(self, indices: np.ndarray) -> bool:
        """Whether batches of some series have a mask: where those of training have, and where they need one."""
        return self.masked or self.data.needs_mask(indices)

    @property
    def is_by_group(self) -> bool:
        """Whether validation is of whole groups, none of which is trained on."""
        if self.data.groups is None or self.data.by_time or self.protocol.split_method not in ("group", "given"):
            return False
        return not self.protocol.groups_in_train_and_validation

    def groups_of(self, indices: np.ndarray) -> "Groups | None":
        """Return what is left out together of some training and validation series, as validation is of training.

        Where whole groups validate, these; windows of the same recordings, or of periods, are left out by time; others
        one at a time, each with its copies.
        """
        data = self.data
        import torch

        from krontime.models.kernel_ridge.ridge import Groups

        if self.is_by_group:
            assert data.groups is not None
            return Groups(torch.from_numpy(data.groups[indices]))
        if data.windows is None:
            copies = copies_among(data, indices)
            return None if copies is None else Groups(torch.from_numpy(copies))
        recording, start, length = (column[indices] for column in data.windows)
        if data.by_time:  # those of all recordings at one time, counted back from their ends, validation after training
            points = np.diff(data.offsets)
            start = start - points[recording] + np.isin(indices, self.split.validation) * points.max()
        else:
            start = start + data.offsets[recording]
        span = np.stack([start, start + length], axis=1)
        return Groups(torch.from_numpy(self._blocks[indices]), torch.from_numpy(span))

    @cached_property
    def _blocks(self) -> np.ndarray:
        return blocks_of_time(self.data, self.split)

    def batches(self, config: Mapping[str, Any], held_out: HeldOut | None = None) -> "SeriesDataModule":
        """Build the data module of a run; for `held_out` see `SeriesDataset`."""
        from krontime.data.datamodule import SeriesDataModule  # with Lightning, which takes seconds

        options = config["data"]
        return SeriesDataModule(
            data=self.data,
            split=self.split,
            batch_size=options["batch_size"],
            eval_batch_size=options["eval_batch_size"],
            num_workers=options["num_workers"],
            min_batches=config["optim"].get("min_batches_per_epoch", 1),
            balanced=config["loss"]["class_weights"] == "sampled",
            seed=config["seed"],
            masked=self.masked,
            held_out=held_out,
        )


def prepare(config: Mapping[str, Any], data: SeriesData | None = None) -> PreparedData:
    """Read (or parse) the data set of a plain config and split it.

    Args:
        config: resolved, in plain types.
        data: series that are in memory already, with their checksum, not yet prepared; None to read what the config
            names.

    Raises:
        UserError: the data cannot be read or prepared, or cannot be split as asked.
    """
    options = config["data"]
    data = load_data(config) if data is None else cut_as(_prepared(data, options), options["window"])
    split = split_of(config, data)
    if is_first_rank():
        log.info("%s", what_was_read(data, name=options["name"], split=split))
    spec = replace(data.spec, num_series=_num_fitted(config, split))
    num_longer = int((data.lengths[split.test] > spec.length).sum())
    if num_longer:
        data = replace(data, read_length=spec.length, read_from=options["prepare"]["crop_from"])
        if is_first_rank():
            log.warning(
                "%d of %d test series are longer than the %d points of the longest training series: no more is read",
                *(num_longer, len(split.test), spec.length),
            )
    counts = np.bincount(data.labels[split.train], minlength=spec.num_classes)
    configured = configured_protocol(config)
    fit_on = configured["fitted_on"]
    fitted = np.concatenate([split.train, split.validation]) if fit_on == "train_and_validation" else split.train
    assert data.sha256 is not None  # of what was read, or of what the caller has in memory
    protocol = Protocol(
        data_sha256=data.sha256,
        resampled_by=resample_method(data, options.get("resample", 0)),
        split_method=split.protocol["method"],
        fold=split.protocol.get("fold"),
        group=data.group_name if split.protocol["method"] == "group" else None,
        groups_in_train_and_validation=split.protocol.get("groups_in_train_and_validation"),
        groups_in_train_and_test=split.protocol.get("groups_in_train_and_test"),
        num_train=len(split.train),
        num_val=len(split.validation),
        num_test=len(split.test),
        num_test_cropped=num_longer,
        train_class_counts=dict(zip(spec.class_names, counts.tolist(), strict=True)),
        series_length=int(data.lengths[fitted].max()) if fit_on and not data.equal_length else None,
        **configured,
    )
    if protocol.score is None:
        score: StatedScore = "balanced_accuracy" if protocol.imbalanced else "accuracy"
        protocol = protocol.model_copy(update={"score": score})
    prepared = PreparedData(data=data, spec=spec, split=split, protocol=protocol)
    if is_first_rank():
        _warn_of_copies(prepared, options["name"])
    return prepared


def _warn_of_copies(prepared: PreparedData, name: str) -> None:
    """Say how many series of training and validation are copies of others there, and whether validation knows."""
    data, split = prepared.data, prepared.split
    fitted = np.concatenate([split.train, split.validation])
    if (copies := copies_among(data, fitted)) is None:
        return
    part = np.isin(fitted, split.validation).astype(np.int64)
    if prepared.is_by_group:
        assert data.groups is not None
        part = data.groups[fitted]
    num_parts = np.bincount(np.unique(np.stack([copies, part]), axis=1)[0])
    num_divided = int((num_parts[copies] > 1).sum())
    log.warning(
        "%s: %d of %d training series have copies among these, to the last bit; %s",
        *(name, int((np.bincount(copies)[copies] > 1).sum()), len(fitted)),
        "validation leaves copies out together"
        if not num_divided
        else f"validation says less, since it can't leave out {num_divided} of them together",
    )


def _num_fitted(config: Mapping[str, Any], split: Split) -> int:
    """Count the series that a closed form is fitted to."""
    is_on_train = (config.get("closed_form") or {}).get("fit_on") == "train"
    return len(split.train) + (0 if is_on_train else len(split.validation))


def _prepared(data: SeriesData, options: Mapping[str, Any]) -> SeriesData:
    """Resample and crop series that are in memory already, as those of a file are; new ones get their checksum.

    Raises:
        UserError: it cannot be done.
    """
    with naming_keys(options, "data"):
        prepared = Prepare(**options["prepare"]).apply(data)
    return data if prepared is data else with_checksum(prepared)


def load_data(config: Mapping[str, Any]) -> SeriesData:
    """Load the data set of a plain config, from `paths.cache` or parsed into it, windowed and resampled as asked.

    Files of a store are copied to `paths.cache` before.

    Raises:
        UserError: it cannot be read or split so, or the cache cannot be written.
    """
    options = config["data"]
    cache = expanded(config["paths"]["cache"])
    with naming_keys(options, "data"), cache_errors(cache):
        arguments = local_copies(options["source"], cache / "stores")
    source = instantiate(arguments, "data.source")
    with naming_keys(options, "data"):
        stored = load_cached(source, Prepare(**options["prepare"]), cache)
        resample = options.get("resample", 0)
        data = resampled(cut_as(stored, options["window"]), resample)
        if resample:
            is_test = np.isin(np.arange(len(stored)), data.recording[data.is_test])
            look_for_copies(replace(stored, is_test=is_test), f"{options['name']}, data.resample={resample}")
        return data


def split_of(config: Mapping[str, Any], data: SeriesData) -> Split:
    """Split series into training, validation and test as a plain config asks.

    Raises:
        UserError: the data cannot be split as asked.
    """
    with naming_keys(config["data"]["validation"], "data.validation"):
        return split_indices(data, **config["data"]["validation"], seed=config["seed"])


def moved(config: Mapping[str, Any], paths: Mapping[str, str | None]) -> dict[str, Any]:
    """A run's config with its cache and its data elsewhere, as far as folders for them are given.

    Args:
        config: of the run, resolved, in plain types.
        paths: `data`, the folder that the data lies in (or is, where a folder is the data), and `cache`; None for those
            that have not moved.
    """
    given = {key: value for key, value in paths.items() if value is not None}
    moved = {**config, "paths": {**config["paths"], **given}}
    if "data" in given:
        old, new = Path(config["paths"]["data"]), Path(given["data"])
        source = {
            key: _moved_path(key, value, old, new) if isinstance(value, str) and key != "_target_" else value
            for key, value in config["data"]["source"].items()
        }
        moved["data"] = {**config["data"], "source": source}
    return moved


def _moved_path(key: str, value: str, old: Path, new: Path) -> str:
    """An argument of a source: where it lies in the new folder, if it is a path and does."""
    path = Path(value)
    if path.is_relative_to(old):
        return str(new / path.relative_to(old))
    elsewhere = new / path.name
    if elsewhere.is_file():
        return str(elsewhere)
    if key in _MAY_BE_FOLDERS and path.name and not path.exists():
        return next((str(folder) for folder in (elsewhere, new) if folder.name == path.name and folder.is_dir()), value)
    return value
