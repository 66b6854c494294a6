"""The module of a run before its first step: what depends on training data is fitted to the training series."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from krontime.console import progress
from krontime.data.datamodule import ConsecutiveBatches, SeriesDataset
from krontime.data.normalizer import Normalizer
from krontime.data.series import SeriesBatch
from krontime.models.read_out import KernelReadOut
from krontime.runs.prepare import PreparedData
from krontime.training.build import build_module
from krontime.training.module import SeriesClassifier

FIT_SERIES = 128

FIT_POINTS = 2**21
"""Training series that fixed kernels are fitted to, and their values in all, at most."""

READ_OUT_SERIES = 5_000
"""Training series that a read-out in closed form is fitted to, and validation series beside them, at most, since their
features lie in memory together."""


def fitted_module(config: Mapping[str, Any], prepared: PreparedData) -> SeriesClassifier:
    """The module of a run before its first step: what depends on training data is taken from the training series."""
    split, data = prepared.split, prepared.data
    weights = None
    chosen = config["loss"]["class_weights"]
    if chosen == "balanced" or (chosen == "auto" and prepared.protocol.imbalanced):
        counts = torch.tensor(list(prepared.protocol.train_class_counts.values()), dtype=torch.float32).clamp(min=1)
        weights = counts.sum() / (len(counts) * counts)
    about = {
        "config": dict(config),
        "spec": prepared.spec.to_plain(),
        "protocol": prepared.protocol.model_dump(mode="json"),
        "masked": prepared.masked,
    }
    module = build_module(config, prepared.spec, class_weights=weights, about=about)
    assert isinstance(module.normalizer, Normalizer)
    module.normalizer.fit(data, split.train)
    most = min(FIT_SERIES, max(1, FIT_POINTS // (data.num_channels * prepared.spec.length)))
    fit_tokens = getattr(module.network, "fit_tokens", None)
    if fit_tokens is not None or module.read_out is not None:
        sample = _sample(split.train, most, config["seed"])
        x, mask, *_ = next(_scaled(module, prepared, sample, most))
        if fit_tokens is not None:
            with torch.no_grad():
                fit_tokens(x, mask)
        if module.read_out is not None:
            module.read_out.fit_kernels(x, mask)
            _fit_read_out(module, module.read_out, config, prepared)
    return module


def _fit_read_out(
    module: SeriesClassifier, read_out: KernelReadOut, config: Mapping[str, Any], prepared: PreparedData
) -> None:
    """Fit a read-out to the training series, and note its logits for the validation series; then fit it to both."""

    def features(indices: np.ndarray) -> Iterator[tuple[torch.Tensor, SeriesBatch]]:
        with progress("features of the closed form", len(indices)) as step:
            for batch in _scaled(module, prepared, indices, config["data"]["eval_batch_size"]):
                yield read_out.features(batch.x, batch.mask), batch
                step(len(batch.y))

    train = _sample(prepared.split.train, READ_OUT_SERIES, config["seed"])
    found, labels = [], []
    for part, batch in features(train):
        found.append(part)
        labels.append(batch.y)
    read_out.fit(torch.cat(found), torch.cat(labels), module.class_weights)
    most = READ_OUT_SERIES if read_out.fit_on == "train_and_validation" else 0
    beside = torch.from_numpy(_sample(prepared.split.validation, most, config["seed"]))
    for part, batch in features(prepared.split.validation):
        module.left_out |= dict(zip(batch.index.tolist(), read_out.logits(part), strict=True))
        is_beside = torch.isin(batch.index, beside)
        found.append(part[is_beside])
        labels.append(batch.y[is_beside])
    if most:
        read_out.fit(torch.cat(found), torch.cat(labels), module.class_weights)


def _sample(indices: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of `indices`, drawn by `seed`, rising."""
    return np.sort(np.random.default_rng(seed).permutation(indices)[:most])


def _scaled(
    module: SeriesClassifier, prepared: PreparedData, indices: np.ndarray, batch_size: int
) -> Iterator[SeriesBatch]:
    """Batches of scaled series."""
    dataset = SeriesDataset(prepared.data, prepared.masked)
    for positions in ConsecutiveBatches(indices, batch_size=batch_size):
        batch = dataset.__getitems__(positions)
        yield batch._replace(x=module.normalizer(batch.x, batch.mask))
