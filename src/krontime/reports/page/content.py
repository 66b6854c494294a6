"""What a page on a finished run says, from its record, its predictions and, where it can be read, its data.

Shape letters: n test (or held-out) series, K classes, R resamples.
"""

import csv
import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from krontime.data.datamodule import SeriesDataset
from krontime.data.series import SeriesData
from krontime.errors import UserError
from krontime.reports.comparison.collect import Stored, refuse_contradictions
from krontime.reports.comparison.over_groups import mean_over_groups, too_few
from krontime.reports.comparison.series_bootstrap import joining_groups
from krontime.reports.page.decisions import Decided, decided_for
from krontime.runs import prepare
from krontime.runs.load import load_run
from krontime.runs.predictions import Predictions, read_predictions
from krontime.runs.record import Record, Status
from krontime.storage import HELD_OUT, PREDICTIONS, RECORD, VALIDATION_PREDICTIONS
from krontime.training.attribution import Attribution, attribution

Scored = Literal["test", "held-out"]

NUM_RESAMPLES = 2_000
NUM_BINS = 10
NUM_EXAMPLES = 3


class Interval(NamedTuple):
    """95 % of the scores that other test series (or groups of them) would have given."""

    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Series whose most probable class has about the same probability."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class Example:
    """One test (or held-out) series with what the model says of it.

    Attributes:
        why: what it is an example of.
        index: position in the data set.
        file: that it was read from; None where one file holds several.
        label, predicted: class names; the label is None where it is not known.
        probability: of the predicted class.
        values: `(C, L)`; None where the data could not be read.
        attribution: what its class rests on; None where that was not asked.
    """

    why: str
    index: int
    file: str | None
    label: str | None
    predicted: str
    probability: float
    values: np.ndarray | None
    attribution: Attribution | None = None


@dataclass(frozen=True)
class RunContent:
    """What a page on one run says.

    Attributes:
        folder: of the run.
        record: of the run.
        class_names: of the data set, in the order of `confusion`.
        scored: which series bins, confusion and examples are of: `test`, or `held-out` without a test split.
        num_groups: of the scored series; None where they are in none.
        intervals: of the test scores, by metric.
        bins: of the reliability plot, from the lowest confidence to the highest.
        confusion: int64 `(K, K)`, true class by predicted class.
        curves: by metric, its epochs and values.
        examples: of the scored series.
        decisions: sets and thresholds from held-out series, and what they give for test series.
        data: the data set; None where it could not be read.
        missing: why it could not.
        table: folder of published results that the run is of; None for one in a folder of its own.
    """

    folder: Path
    record: Record
    class_names: tuple[str, ...]
    scored: Scored
    num_groups: int | None
    intervals: dict[str, Interval]
    bins: list[Bin]
    confusion: np.ndarray | None
    curves: dict[str, tuple[list[int], list[float]]]
    examples: list[Example]
    decisions: list[Decided]
    data: SeriesData | None
    missing: str | None
    table: Path | None = None


def run_content(folder: Path, paths: Mapping[str, Any], *, explain: bool = False) -> RunContent:
    """Gather what the page on a run says.

    Args:
        folder: of the run.
        paths: folders that have moved since (`data`, `cache`); None for those that have not.
        explain: ask what the first example of each kind rests on, where the extra for it is installed.

    Raises:
        UserError: there is no completed run, or a file of it is damaged.
    """
    record = Record.read(folder / RECORD)
    if record.status is not Status.COMPLETED:
        raise UserError(f"run={str(folder)!r}: expected a completed run; this one is {record.status.replace('_', ' ')}")
    refuse_contradictions(Stored(record, folder))
    data, missing = _data(record, paths)
    held_out = _predictions(folder / HELD_OUT)
    tested = _predictions(folder / PREDICTIONS)
    predictions = tested or held_out or _predictions(folder / VALIDATION_PREDICTIONS)
    intervals: dict[str, Interval] = {}
    bins: list[Bin] = []
    confusion, examples, groups = None, [], None
    if predictions is not None:
        truth, predicted = _codes(predictions)
        groups = predictions.groups
        if groups is None and data is not None and data.groups is not None:  # older runs kept none beside them
            groups = data.groups[predictions.index]
        groups = joining_groups(groups)
        if tested is not None:
            intervals = score_intervals(truth, predicted, predictions.probabilities, groups)
        bins = reliability(truth, predicted, predictions.probabilities)
        confusion = confusion_counts(truth, predicted, len(predictions.class_names))
        examples = _examples(predictions, truth, predicted, data)
    decided = [] if held_out is None else decided_for(held_out, tested)
    if explain and data is not None and importlib.util.find_spec("captum") is not None:
        examples = _explained(examples, folder, data)
    curves = learning_curves(folder)
    return RunContent(
        folder,
        record,
        () if predictions is None else predictions.class_names,
        "held-out" if tested is None else "test",
        None if groups is None else len(np.unique(groups)),
        intervals,
        bins,
        confusion,
        curves,
        examples,
        decided,
        data,
        missing,
    )


def archived_content(run: Stored, table: Path) -> RunContent:
    """Gather what the page on a run of published results says: of more than two classes no probabilities are kept.

    Args:
        run: a completed one.
        table: the folder of the results.
    """
    assert run.record.protocol is not None  # a completed run has one
    names = tuple(run.record.protocol.train_class_counts)
    intervals: dict[str, Interval] = {}
    bins: list[Bin] = []
    confusion, groups = None, None
    if (outcomes := run.outcomes) is not None:
        code = {name: position for position, name in enumerate(names)}
        truth, predicted = (np.array([code[it] for it in given]) for given in (outcomes.labels, outcomes.predicted))
        probability = None
        if outcomes.probability is not None and outcomes.positive is not None:
            second = outcomes.probability
            both = {outcomes.positive: second}
            probability = np.stack([both.get(name, 1 - second) for name in names], axis=1)
            bins = reliability(truth, predicted, probability)
        groups = joining_groups(outcomes.groups)
        intervals = score_intervals(truth, predicted, probability, groups)
        confusion = confusion_counts(truth, predicted, len(names))
    num_groups = None if groups is None else len(np.unique(groups))
    return RunContent(
        run.folder, run.record, names, "test", num_groups, intervals, bins, confusion, {}, [], [], None, None, table
    )


def _predictions(path: Path) -> Predictions | None:
    """The predictions of a file; None where there is no such file."""
    return read_predictions(path) if path.is_file() else None


def _data(record: Record, paths: Mapping[str, Any]) -> tuple[SeriesData | None, str | None]:
    """The data set of a run, or why it can't be read (again)."""
    try:
        data = prepare.load_data(prepare.moved(record.config, paths))
    except (UserError, KeyError, TypeError, AttributeError) as error:
        return None, str(error).splitlines()[0]
    if record.protocol is not None and data.sha256 != record.protocol.data_sha256:
        return None, "the data set has changed since the run"
    return data, None


def _codes(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes `(n,)` as positions in the class names."""
    code = {name: position for position, name in enumerate(predictions.class_names)}
    truth = np.array([code[label] for label in predictions.labels if label is not None], np.int64)
    return truth, np.array([code[name] for name in predictions.predicted], np.int64)


def score_intervals(
    truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray | None, groups: np.ndarray | None, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of accuracy, balanced accuracy and negative log-likelihood, by bootstrap or `mean_over_groups`.

    That of accuracy is Wilson's for single series, and where all are right or all wrong, since the others have no width
    there. There are none where groups are too few, and none of balanced accuracy where a class is in one group alone.

    Args:
        truth: `(n,)` classes.
        predicted: `(n,)` classes.
        probability: `(n, K)`; None where it is not known, which leaves the log-likelihood out.
        groups: `(n,)` what series have in common (patient, speaker); None for single series.
        seed: of the draws.
    """
    from scipy.stats import binomtest

    num_units = len(truth) if groups is None else len(np.unique(groups))
    if groups is not None and too_few(num_units):
        return {}
    correct = (truth == predicted).astype(np.float64)
    together = np.zeros_like(truth)
    scores = {"accuracy": (correct, together), "balanced_accuracy": (correct, truth)}
    if probability is not None:
        smallest = np.finfo(np.float32).tiny  # as the score itself has it
        scores["nll"] = -np.log(np.clip(probability[np.arange(len(truth)), truth], smallest, 1)), together
    if groups is None:
        intervals = _over_series(scores, seed)
    else:
        intervals = {}
        for name, (values, strata) in scores.items():
            _, low, high = mean_over_groups(values, strata, groups)
            if low is not None and high is not None:
                intervals[name] = Interval(max(low, 0.0), high if name == "nll" else min(high, 1.0))
    if groups is None or correct.min() == correct.max():
        right = round(correct.mean() * num_units)
        wilson = binomtest(right, num_units).proportion_ci(method="wilson")
        intervals["accuracy"] = Interval(float(wilson.low), float(wilson.high))
    return intervals


def _over_series(scores: Mapping[str, tuple[np.ndarray, np.ndarray]], seed: int) -> dict[str, Interval]:
    """Percentile intervals of the mean over strata of the mean of each, with single series drawn.

    Args:
        scores: values and strata, `(n,)` each, by name.
        seed: of the draws.
    """
    num = len(next(iter(scores.values()))[0])
    draws = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), NUM_RESAMPLES)
    weight_Rn = draws.astype(np.float64)
    intervals = {}
    for name, (values, strata) in scores.items():
        means = []
        for stratum in np.unique(strata):
            within = weight_Rn[:, strata == stratum]
            with np.errstate(invalid="ignore"):
                means.append((within @ values[strata == stratum]) / within.sum(axis=1))
        intervals[name] = Interval(*np.quantile(np.nanmean(means, axis=0), (0.025, 0.975)).tolist())
    return intervals


def reliability(truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray) -> list[Bin]:
    """Confidence against accuracy in bins of equal width; empty bins are left out."""
    confidence = probability[np.arange(len(truth)), predicted]
    position = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    return [
        Bin(float(confidence[inside].mean()), float((truth == predicted)[inside].mean()), int(inside.sum()))
        for inside in (position == number for number in range(NUM_BINS))
        if inside.any()
    ]


def confusion_counts(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 `(K, K)`: series by true class (row) and predicted class (column)."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def learning_curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Each metric that the run logged once an epoch: epochs from 1, and values; empty without `metrics.csv`."""
    files = sorted(folder.rglob("metrics.csv"))
    if not files:
        return {}
    curves: dict[str, tuple[list[int], list[float]]] = {}
    with files[0].open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if name == "train/loss_epoch" or name.startswith("val/"):
                    value = float(text) if text else math.nan
                    if math.isfinite(value) and (row.get("epoch") or "").isdigit():
                        epochs, values = curves.setdefault(name, ([], []))
                        epochs.append(int(row["epoch"]) + 1)
                        values.append(value)
    return curves


def _examples(
    predictions: Predictions, truth: np.ndarray, predicted: np.ndarray, data: SeriesData | None
) -> list[Example]:
    """Wrong with the most confidence, right with the most, and those that the model is least sure of."""
    confidence = predictions.probabilities[np.arange(len(truth)), predicted]
    wrong, right = np.flatnonzero(truth != predicted), np.flatnonzero(truth == predicted)
    chosen = [("wrong, and sure", _highest(confidence, wrong)), ("right, and sure", _highest(confidence, right))]
    chosen.append(("least sure", _highest(-confidence, np.arange(len(truth)))))
    return [
        Example(
            why,
            int(predictions.index[row]),
            None if data is None else data.name_of(int(predictions.index[row])),
            predictions.class_names[truth[row]],
            predictions.class_names[predicted[row]],
            float(confidence[row]),
            None if data is None else np.asarray(data.series(int(predictions.index[row]))),
        )
        for why, rows in chosen
        for row in rows
    ]


def _highest(values: np.ndarray, among: np.ndarray) -> Sequence[int]:
    return among[np.argsort(-values[among], kind="stable")][:NUM_EXAMPLES].tolist()


def _explained(examples: list[Example], folder: Path, data: SeriesData) -> list[Example]:
    """The examples, the first of each kind with what its class rests on; as they are where no model was kept."""
    try:
        run = load_run(folder)
    except UserError:
        return examples
    explained: list[Example] = []
    for example in examples:
        is_first = example.why not in {other.why for other in explained}
        if is_first and example.values is not None and example.values.shape[1] <= run.spec.length:
            masked = run.masked or data.needs_mask(np.array([example.index]))
            batch = SeriesDataset(data, masked).__getitems__([example.index])
            mask = None if batch.mask is None else batch.mask[0]
            target = run.spec.class_names.index(example.predicted)
            example = replace(example, attribution=attribution(run.module, batch.x[0], mask, target))
        explained.append(example)
    return explained
