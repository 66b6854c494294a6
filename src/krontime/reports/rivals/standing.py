"""How our models stand among others: means, ranks, and tests on what all of them have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from krontime.metrics import MetricName
from krontime.reports.comparison.compare import LOWER_IS_BETTER, Comparison
from krontime.reports.comparison.series_bootstrap import LEVEL
from krontime.reports.rivals.read import Place, Scores
from krontime.runs.record import Record

_DRAWS = 9_999  # of data sets, for an interval

_DIGITS = 4  # published figures are rounded to five digits, and scores that should tie must


@dataclass(frozen=True)
class Standing:
    """Scores of one metric on the places that all compared have.

    Attributes:
        metric: name of the metric.
        ours: names of our models.
        others: names of the published classifiers.
        places: data sets and resamples.
        means: `(data sets, models)`, ours first: means over the resamples of each data set.
        left_out: published classifiers without a figure for some place.
        not_ours: our models without a score of this metric.
    """

    metric: MetricName
    ours: tuple[str, ...]
    others: tuple[str, ...]
    places: tuple[Place, ...]
    means: np.ndarray
    left_out: tuple[str, ...]
    not_ours: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all models, ours first."""
        return self.ours + self.others

    @property
    def data_sets(self) -> list[str]:
        """Sorted."""
        return sorted({data for data, _ in self.places})

    @property
    def higher(self) -> np.ndarray:
        """`means`, turned round where lower is better."""
        return np.round(-self.means if self.metric in LOWER_IS_BETTER else self.means, _DIGITS)

    def ranks(self) -> np.ndarray:
        """Mean rank of each model over data sets, 1 the best; ties share theirs."""
        from scipy.stats import rankdata

        mean: np.ndarray = rankdata(-self.higher, axis=1).mean(axis=0)
        return mean


@dataclass(frozen=True)
class Pairing:
    """One of our models against another.

    Attributes:
        other: name of the other.
        wins, draws, losses: data sets on which ours is better, as good, worse.
        difference: mean of ours less that of the other.
        low, high: its 95 % interval, from a paired bootstrap over data sets.
        p_holm: of Wilcoxon's signed-rank test, two-sided, corrected over all others; 1 where nothing differs.
    """

    other: str
    wins: int
    draws: int
    losses: int
    difference: float
    low: float
    high: float
    p_holm: float


def our_scores(comparison: Comparison, metric: MetricName) -> Scores:
    """Test scores of our models by data set and resample, each the mean over seeds.

    Runs under a data set's first protocol alone count, and none of a model with several configs on it.
    """
    scores: Scores = {}
    for variant in comparison.variants:
        for data in comparison.data_sets:
            entries = comparison.of(data, 0, variant)
            if len(entries) == 1:
                means = _by_resample(entries[0].completed, metric)
                scores.setdefault(" ".join(variant), {}).update({(data, k): mean for k, mean in means.items()})
    return scores


def _by_resample(records: Sequence[Record], metric: MetricName) -> dict[int, float]:
    by_resample: dict[int, list[float]] = {}
    for record in records:
        score = record.metrics.test.get(metric)
        if score is not None and record.protocol is not None:
            by_resample.setdefault(record.protocol.resample, []).append(score)
    return {resample: float(np.mean(scores)) for resample, scores in by_resample.items()}


def standing(metric: MetricName, ours: Scores, theirs: Scores) -> Standing | None:
    """What all compared have: the places of all of our models that most of the others have too, and those who have all.

    Args:
        metric: name of the metric.
        ours: of our models; one without any score is not compared.
        theirs: of the published classifiers.

    Returns:
        The standing; None where there is no such place, or nobody to compare with.
    """
    scored = {name: scores for name, scores in ours.items() if scores}
    if not scored or not theirs:
        return None
    shared = set.intersection(*(set(scores) for scores in scored.values()))
    places = sorted(place for place in shared if 2 * sum(place in scores for scores in theirs.values()) > len(theirs))
    others = [name for name in sorted(theirs, key=str.casefold) if all(place in theirs[name] for place in places)]
    if not places or not others:
        return None
    data_sets = sorted({data for data, _ in places})
    compared = [*scored.values(), *(theirs[name] for name in others)]
    columns = [data_set_means(scores, places, data_sets) for scores in compared]
    return Standing(
        metric=metric,
        ours=tuple(scored),
        others=tuple(others),
        places=tuple(places),
        means=np.array(columns).T,
        left_out=tuple(name for name in sorted(theirs, key=str.casefold) if name not in others),
        not_ours=tuple(name for name in ours if name not in scored),
    )


def resample_numbers(places: Sequence[Place]) -> str:
    """`resample 0`, `resamples 0 to 4` where they are all between, else `resamples 0, 2, 5`."""
    values = sorted({resample for _, resample in places})
    if len(values) == 1:
        return f"resample {values[0]}"
    if values == list(range(values[0], values[-1] + 1)):
        return f"resamples {values[0]} to {values[-1]}"
    return f"resamples {', '.join(map(str, values))}"


def data_set_means(scores: Mapping[Place, float], places: Sequence[Place], data_sets: Sequence[str]) -> list[float]:
    """Means over the resamples of each data set."""
    return [float(np.mean([scores[place] for place in places if place[0] == data])) for data in data_sets]


def pairings(standing: Standing, model: str) -> list[Pairing]:
    """One of our models against every other one, Wilcoxon's p-values corrected by Holm's method."""
    from scipy.stats import wilcoxon
    from statsmodels.stats.multitest import multipletests

    own = standing.names.index(model)
    others = [number for number in range(len(standing.names)) if number != own]
    differences = standing.higher[:, [own]] - standing.higher
    ps = [
        float(wilcoxon(differences[:, number]).pvalue) if np.any(differences[:, number]) else 1.0 for number in others
    ]
    corrected = multipletests(ps, alpha=LEVEL, method="holm")[1] if ps else []
    raw = standing.means[:, [own]] - standing.means
    drawn = np.random.default_rng(0).integers(len(raw), size=(_DRAWS, len(raw)))
    low, high = np.quantile([raw[rows].mean(axis=0) for rows in drawn], [0.025, 0.975], axis=0)
    return [
        Pairing(
            other=standing.names[number],
            wins=int((differences[:, number] > 0).sum()),
            draws=int((differences[:, number] == 0).sum()),
            losses=int((differences[:, number] < 0).sum()),
            difference=float(raw[:, number].mean()),
            low=float(low[number]),
            high=float(high[number]),
            p_holm=float(p),
        )
        for number, p in zip(others, corrected, strict=True)
    ]
