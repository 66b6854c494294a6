"""Builds the module of a run before its first step, with what depends on training data fitted to it."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from krontime.config.targets import has_network
from krontime.console import progress, without_progress
from krontime.data.datamodule import SeriesDataset
from krontime.data.normalizer import Normalizer
from krontime.data.series import HeldOut, SeriesBatch
from krontime.models.kernel_ridge.classifier import ClosedForm
from krontime.models.kernel_ridge.part import MAX_EXACT, LabelledSeries, is_streamed
from krontime.models.kernel_ridge.ranks import Ranks
from krontime.runs.prepare import PreparedData
from krontime.training.build import build_module, closed_form
from krontime.training.module import SeriesClassifier

log = logging.getLogger(__name__)

FIT_SERIES = 128
"""Number of training series that fixed kernels are fitted to, at most."""

FIT_POINTS = 2**21
"""Number of values of these series in all, at most, but for one series."""


def fitted_module(
    config: Mapping[str, Any],
    prepared: PreparedData,
    begin: Callable[[], None] = lambda: None,
    *,
    is_first: bool = True,
    join: Callable[[], Ranks] = Ranks,
) -> tuple[SeriesClassifier, HeldOut]:
    """Build the module of a run, and fit what depends on training data to the training series.

    Args:
        config: resolved, in plain types.
        prepared: its data.
        begin: called once all is compiled that is kept for later runs: what follows is a cost of this run.
        is_first: whether this is the process that fits a closed form to few series; the others are sent it when
            training begins.
        join: connects all processes, which share the fit of a closed form to more series.

    Returns:
        The module, and what a closed form says of the series that it was fitted to, each from a fit without it.
    """
    split, data = prepared.split, prepared.data
    closed = closed_form(config, prepared.spec)
    ranks = Ranks()
    if closed is not None:
        is_shared = is_streamed(prepared.spec.num_series or 0)
        if is_first:
            _compile_loops(closed)
        elif is_shared:
            closed.warm_up()
        if is_shared:
            ranks = join()  # once they have all compiled
        elif is_first and not has_network(config) and config["trainer"]["devices"] not in (1, "auto"):
            log.warning(
                "trainer.devices=%s has no effect: up to %d series, one process fits the closed form",
                *(config["trainer"]["devices"], MAX_EXACT),
            )
    begin()
    weights = None
    chosen = config["loss"]["class_weights"]
    if chosen != "none":
        counts = torch.tensor(list(prepared.protocol.train_class_counts.values()), dtype=torch.float32).clamp(min=1)
        weights = counts.sum() / (len(counts) * counts)
    about = {
        "config": dict(config),
        "spec": prepared.spec.to_plain(),
        "protocol": prepared.protocol.model_dump(mode="json"),
        "masked": prepared.masked,
    }
    module = build_module(
        config,
        prepared.spec,
        closed=closed,
        with_network=closed is None or _can_judge_network(closed, config, len(split.validation)),
        class_weights=weights,
        has_weighted_loss=chosen == "balanced",
        prior=torch.tensor(prepared.protocol.prior),
        about=about,
    )
    assert isinstance(module.normalizer, Normalizer)
    module.normalizer.fit(data, split.train)
    count = min(FIT_SERIES, max(1, FIT_POINTS // (data.num_channels * prepared.spec.length)))
    sample = SeriesDataset(data, prepared.masked).__getitems__(_sample(split.train, count, config["seed"]).tolist())
    if module.network is not None:
        with torch.no_grad():
            module.network.fit_tokens(module.normalizer(sample.x, sample.mask), sample.mask)
    if module.mixture is None or not (is_first or ranks.world_size > 1):
        return module, {}
    return module, _fit_closed_form(module.mixture.closed_form, sample, config, prepared, ranks)


def _can_judge_network(closed: ClosedForm, config: Mapping[str, Any], num_validation: int) -> bool:
    """Say whether there are validation series enough to tell if a network adds to the closed form."""
    if not has_network(config) or num_validation >= closed.min_network_series:
        return True
    log.info(
        "The network is not trained, since %d validation series can't show whether it adds to the closed form "
        "(closed_form.min_network_series=%d; 0 trains it, and closed_form=none trains it alone)",
        *(num_validation, closed.min_network_series),
    )
    return False


def _compile_loops(closed: ClosedForm) -> None:
    """Compile the closed form's loops before the time of training begins, since they are kept for later runs."""
    started_s = time.perf_counter()
    closed.warm_up()
    if (took_s := time.perf_counter() - started_s) > 1:
        log.info("Compiled the closed form's loops for this processor in %.0f s; later runs find them", took_s)


def _fit_closed_form(
    closed: ClosedForm, sample: SeriesBatch, config: Mapping[str, Any], prepared: PreparedData, ranks: Ranks
) -> HeldOut:
    """Fit to the training series, and as `fit_on` says to the validation series.

    Returns:
        For each training and validation series that there is such a fit for, by position, logarithms of its
        probabilities from a fit without it, or where validation is by group, without its group.
    """
    split, data = prepared.split, prepared.data
    # Shuffled, since means and deviations may be taken from those that come first.
    shuffled = np.random.default_rng(config["seed"]).permutation(split.train)
    indices = np.concatenate([shuffled, split.validation])
    batch_size = config["data"]["eval_batch_size"]

    def read(chunks: Sequence[range]) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        dataset = SeriesDataset(data, prepared.masked)
        with progress("features of the closed form", sum(map(len, chunks))) as step:
            for chunk in chunks:
                for start in range(chunk.start, chunk.stop, batch_size):
                    batch = dataset.__getitems__(indices[start : min(start + batch_size, chunk.stop)].tolist())
                    yield batch.x, batch.mask
                    step(len(batch.y))

    series = LabelledSeries(
        read=read,
        labels=torch.from_numpy(data.labels[indices]),
        num_train=len(shuffled),
        fit_validation=closed.fit_on == "train_and_validation",
        groups=prepared.groups_of(indices),
        ranks=ranks,
    )
    with without_progress(ranks.rank > 0):
        left_out = closed.fit((sample.x, sample.mask), series).float()
    is_known = (left_out != 0).any(dim=1)
    return {position: left_out[row] for row, position in enumerate(indices.tolist()) if is_known[row]}


def _sample(indices: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw at most `count` of `indices` by `seed`, and return them rising."""
    return np.sort(np.random.default_rng(seed).permutation(indices)[:count])
