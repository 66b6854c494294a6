"""Decisions beyond the most probable class: sets of classes at a stated coverage, and thresholds on one class.

Both come from series that were held out of what classifies them, never from test series. What is promised of new series
counts one more unit (series, or group of them) than was held out, as the worst possible; so few units promise little.

Shape letters: n series, K classes.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from krontime.errors import Problems, UserError
from krontime.metrics import decide
from krontime.runs.predictions import Predictions

_ROUNDING = 1e-9
"""Largest rounding error of a sum of weights."""

_ONE_OF_BOTH = "threshold.class: expected either threshold.recall or threshold.precision beside it"


class ConformalSets(NamedTuple):
    """The rule for sets of classes that hold the true one for a stated fraction of series.

    Split conformal prediction with the probability of the true class as score (Sadinle, Lei, Wasserman 2019,
    arXiv 1609.00451), on series that were left out one at a time where the closed form answers (Barber, Candes, Ramdas,
    Tibshirani 2021, arXiv 1905.02928). Where series come in groups, each group has the same weight (Lee, Barber,
    Willett 2023, arXiv 2306.06342), and coverage is that of series of new groups.

    Attributes:
        coverage: the stated fraction.
        lowest: probability from which a class is in the set.
        num_units: series, or groups of them, that it comes from.
        unit: what they are: `series` or `groups`.
    """

    coverage: float
    lowest: float
    num_units: int
    unit: str

    def __str__(self) -> str:
        return (
            f"sets hold the true class of {self.coverage:.4g} of series like those of training: classes of probability "
            f"{self.lowest:.4g} and more, from {self.num_units:,} held-out {self.unit}"
        )

    @classmethod
    def of(cls, held_out: Predictions, coverage: object) -> "ConformalSets":
        """Calibrate on held-out series.

        Raises:
            UserError: there are too few of them to promise such a coverage.
        """
        coverage = _fraction("coverage", coverage)
        groups = held_out.groups
        truth = _truth(held_out)
        num_units, unit = (len(truth), "series") if groups is None else (len(np.unique(groups)), "groups")
        lowest = _lowest(held_out.probabilities[np.arange(len(truth)), truth], groups, coverage)
        if lowest is None:
            raise UserError(
                f"coverage={coverage:g}: expected at most {num_units / (num_units + 1):.3f}, since this run held out "
                f"{num_units} {unit} alone; only the set of all classes could be promised more"
            )
        return cls(coverage, lowest, num_units, unit)

    def sets(self, probability: np.ndarray) -> np.ndarray:
        """`(n, K)` bool, whether each class is in the set of each series; a set may be empty.

        Args:
            probability: `(n, K)`.
        """
        return probability >= self.lowest


class Threshold(NamedTuple):
    """The rule that decides for one class wherever its probability is high enough.

    Attributes:
        class_name: of the class.
        lowest: probability from which the class is decided for.
        recall: fraction of the held-out series of the class that it decides for.
        precision: fraction of the held-out series that it decides for which are of the class.
        num_of_class: held-out series of the class.
    """

    class_name: str
    lowest: float
    recall: float
    precision: float
    num_of_class: int

    def __str__(self) -> str:
        return (
            f"{self.class_name} is decided for from a probability of {self.lowest:.4g}: recall {self.recall:.3f} and "
            f"precision {self.precision:.3f} on held-out series, {self.num_of_class:,} of them of that class"
        )

    @classmethod
    def of(
        cls, held_out: Predictions, class_name: str, *, recall: object = None, precision: object = None
    ) -> "Threshold":
        """Find the threshold that reaches the recall or the precision on held-out series and is best for the other.

        The recall is promised for new series of the class, as the coverage of `ConformalSets`. The precision counts one
        more decision, a wrong one, than there was.

        Raises:
            UserError: there is no such class, not exactly one of the two is given, or it can't be reached.
        """
        if class_name not in held_out.class_names:
            raise UserError(f"threshold.class={class_name!r}: expected one of {', '.join(held_out.class_names[:20])}")
        if (recall is None) == (precision is None):
            raise UserError(_ONE_OF_BOTH)
        column = held_out.class_names.index(class_name)
        probability = held_out.probabilities[:, column]
        is_class = _truth(held_out) == column
        if recall is not None:
            lowest = _for_recall(held_out, probability, is_class, recall)
        else:
            lowest = _for_precision(probability, is_class, precision)
        decided = probability >= lowest
        return cls(
            class_name,
            lowest,
            recall=float(decided[is_class].mean()),
            precision=float(is_class[decided].mean()),
            num_of_class=int(is_class.sum()),
        )

    def decide(self, predictions: Predictions) -> np.ndarray:
        """`(n,)`, the position of the class of each series: this one, or what is decided among the others."""
        column = predictions.class_names.index(self.class_name)
        others = predictions.probabilities.copy()
        others[:, column] = -1.0
        prior = 1.0 if predictions.prior is None else predictions.prior
        return np.where(predictions.probabilities[:, column] >= self.lowest, column, decide(others, prior))


class Rules(NamedTuple):
    """What `predict` is asked for beside probabilities.

    Attributes:
        sets: None for no sets of classes.
        threshold: None for `metrics.decide`.
    """

    sets: ConformalSets | None = None
    threshold: Threshold | None = None

    @classmethod
    def of(cls, coverage: object, threshold: Mapping[str, Any], held_out: Predictions | None) -> "Rules":
        """Calibrate what is asked for.

        Args:
            coverage: see `ConformalSets`; None for no sets.
            threshold: `class`, `recall` and `precision`, see `Threshold`; all None for no threshold.
            held_out: what both are calibrated on; None where the run kept nothing.

        Raises:
            UserError: what is asked for is no fraction, is not there, or can't be reached.
        """
        if problems := rule_problems(coverage, threshold):
            raise UserError(problems)
        asked = _given(threshold)
        if coverage is None and not asked:
            return cls()
        if held_out is None:
            raise UserError(
                f"{'coverage' if coverage is not None else 'threshold'}: expected null for this run, which is from "
                "before series were held out for it (the same training command with force=true makes one that has them)"
            )
        collected = Problems()
        sets = limit = None
        with collected.collecting():
            sets = None if coverage is None else ConformalSets.of(held_out, coverage)
        with collected.collecting():
            name = str(asked.pop("class", ""))
            limit = Threshold.of(held_out, name, **asked) if name else None
        collected.raise_if_any()
        return cls(sets, limit)

    def applied(self, predictions: Predictions) -> Predictions:
        """Return the predictions with the sets, and with what the threshold decides."""
        if self.threshold is not None:
            predictions = replace(predictions, decided=self.threshold.decide(predictions))
        if self.sets is not None:
            predictions = replace(predictions, sets=self.sets.sets(predictions.probabilities))
        return predictions

    def sentences(self) -> list[str]:
        """List what each rule promises, a sentence each."""
        return [str(rule) for rule in self if rule is not None]


def rule_problems(coverage: object, threshold: Mapping[str, Any]) -> list[str]:
    """List what is wrong with what `predict` is asked for, whatever the run is; arguments of `Rules.of`."""
    problems = Problems()
    fractions = {"coverage": coverage, **{f"threshold.{key}": threshold.get(key) for key in ("recall", "precision")}}
    for key, value in _given(fractions).items():
        with problems.collecting():
            _fraction(key, value)
    asked = _given(threshold)
    if asked and "class" not in asked:
        problems.lines.append(f"threshold.{next(iter(asked))}: expected threshold.class=NAME beside it")
    elif asked and ("recall" in asked) == ("precision" in asked):
        problems.lines.append(_ONE_OF_BOTH)
    return problems.lines


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _truth(held_out: Predictions) -> np.ndarray:
    """Return the positions `(n,)` of the true classes, all of which are known."""
    code = {name: position for position, name in enumerate(held_out.class_names)}
    return np.array([code[label] for label in held_out.labels if label is not None], np.int64)


def _fraction(key: str, value: object) -> float:
    """Check that a value is a number between 0 and 1; `key` names it in the error."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UserError(f"{key}={value!r}: expected a fraction above 0 and below 1")
    return float(value)


def _lowest(values: np.ndarray, groups: np.ndarray | None, fraction: float) -> float | None:
    """Find the highest bound that a new value reaches with at least a given probability.

    Args:
        values: `(n,)`.
        groups: `(n,)` codes of what values have in common, each with the same weight in all; None for each its own.
        fraction: the probability; the new unit is counted with the known ones, as one that reaches no bound.

    Returns:
        The bound; None where too few units are known for any.
    """
    if groups is None:
        weight = np.full(len(values), 1 / (len(values) + 1))
    else:
        _, position, count = np.unique(groups, return_inverse=True, return_counts=True)
        weight = 1 / (count[position] * (len(count) + 1))
    order = np.argsort(-values, kind="stable")
    reached = np.flatnonzero(np.cumsum(weight[order]) >= fraction - _ROUNDING)
    return float(values[order[reached[0]]]) if len(reached) else None


def _for_recall(held_out: Predictions, probability: np.ndarray, is_class: np.ndarray, recall: object) -> float:
    """Find the highest threshold with that recall of new series of the class; see `Threshold.of`."""
    recall = _fraction("threshold.recall", recall)
    groups = None if held_out.groups is None else held_out.groups[is_class]
    lowest = _lowest(probability[is_class], groups, recall)
    if lowest is None:
        num_units = int(is_class.sum()) if groups is None else len(np.unique(groups))
        unit = "series" if groups is None else "groups"
        raise UserError(
            f"threshold.recall={recall:g}: expected at most {num_units / (num_units + 1):.3f}, since this run held out "
            f"{num_units} {unit} of that class alone"
        )
    return lowest


def _for_precision(probability: np.ndarray, is_class: np.ndarray, precision: object) -> float:
    """Find the lowest threshold with that precision, counting one more wrong decision; see `Threshold.of`."""
    precision = _fraction("threshold.precision", precision)
    order = np.argsort(-probability, kind="stable")
    bounds = probability[order]
    reached = np.cumsum(is_class[order]) / np.arange(2, len(order) + 2)
    reached[:-1][bounds[:-1] == bounds[1:]] = 0.0  # equal probabilities are on one side
    enough = np.flatnonzero(reached >= precision - _ROUNDING)
    if not len(enough):
        raise UserError(
            f"threshold.precision={precision:g}: expected at most {float(reached.max(initial=0)):.3f}, which the "
            f"{len(is_class)} held-out series show at the best threshold"
        )
    return float(bounds[enough[-1]])
