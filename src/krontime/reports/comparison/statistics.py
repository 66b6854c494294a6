"""Whether differences between variants are more than chance.

Over data sets: Wilcoxon's signed-rank test on the mean scores (Demsar 2006). On one data set: a paired t-test over
seeds, or resamples, where there are enough of them, else over test series, of which a run folder knows how each was
classified: McNemar's exact test where one run stands against one, and a paired bootstrap where several do or the score
is balanced.
Where test series come in groups, a sign-flip permutation test over these goes before both.
The p-values of a family are corrected together by Holm's method.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from krontime.errors import UserError
from krontime.reports.comparison.compare import LOWER_IS_BETTER, Comparison, RunGroup, Variant
from krontime.reports.comparison.over_groups import mean_over_groups, sign_flip_p, too_few
from krontime.reports.comparison.series_bootstrap import (
    LEVEL,
    bootstrapped,
    drawn_within,
    joining_groups,
    outcomes_of,
    resamples_of,
    strata_of,
)
from krontime.runs.predictions import Outcomes

MIN_SEEDS = 5
_DIGITS = 9  # beyond these, means that should tie differ by rounding


@dataclass(frozen=True)
class PairedTest:
    """One comparison of two variants.

    Attributes:
        data: name of the data set; None for all of them.
        first, second: the variants.
        difference: mean score of the first less that of the second.
        low, high: 95 % confidence interval of the difference; None where the test gives none.
        n: pairs: data sets, seeds, test series or their groups.
        name: of the test, and what its pairs are.
        p: two-sided.
        p_holm: the same after Holm's correction over its family: the tests of one data set, or those over all.
    """

    __test__ = False  # pytest would take it for one of its own

    data: str | None
    first: Variant
    second: Variant
    difference: float
    low: float | None
    high: float | None
    n: int
    name: str
    p: float
    p_holm: float = 1.0


def over_data_sets(comparison: Comparison) -> list[PairedTest]:
    """Wilcoxon's signed-rank test of each pair of variants, over the data sets on which both have a score."""
    from scipy.stats import wilcoxon

    tests = []
    for first, second in combinations(comparison.variants, 2):
        pairs = []
        for data in comparison.data_sets:
            groups = [comparison.only(data, variant) for variant in (first, second)]
            means = [entry.mean for entry in groups if entry is not None and entry.mean is not None]
            pairs += [means] if len(means) == 2 else []
        differences = np.array([round(a - b, _DIGITS) for a, b in pairs])
        if len(differences) < 2:
            continue
        p = float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0
        name = "Wilcoxon, data sets"
        tests.append(PairedTest(None, first, second, float(differences.mean()), None, None, len(differences), name, p))
    return _holm(tests)


def on_each_data_set(comparison: Comparison) -> tuple[list[PairedTest], list[str]]:
    """A paired test of each pair of variants on each data set, where the runs allow one, and why others had none."""
    tests: list[PairedTest] = []
    problems: dict[str, None] = {}
    untested: list[str] = []
    for data in dict.fromkeys(data for data, _ in comparison.rows):
        entries = [entry for variant in comparison.variants if (entry := comparison.only(data, variant))]
        family: list[PairedTest] = []
        num_untested = 0
        for first, second in combinations(entries, 2):
            try:
                test = _over_groups(first, second) or _over_seeds(first, second) or _over_series(first, second)
            except UserError as error:
                problems |= dict.fromkeys(error.problems)
                continue
            family += [test] if test else []
            num_untested += not test
        if num_untested:
            untested.append(f"{data} ({num_untested})")
        tests += _holm(family)
    if untested:
        problems |= {
            f"Pairs without a test, having fewer than {MIN_SEEDS} seeds (or resamples) in common and no test "
            f"predictions for this score, or nothing that varies: {', '.join(untested)}.": None
        }
    return tests, list(problems)


def mean_ranks(comparison: Comparison) -> tuple[dict[Variant, float], np.ndarray, list[str]]:
    """Mean ranks over data sets, 1 the best, the scores that are ranked, and what was left out.

    Ranked are all variants with a score on at least half of the data sets, over the data sets on which each of them has
    one: no variant goes for want of a few cells, which would leave the others to be ranked among themselves.

    Returns:
        Ranks by variant, empty where no data set is left; scores `(data sets, variants)` of which higher is better; and
        a line for the variants and for the data sets that are not ranked.
    """
    from scipy.stats import rankdata

    data_sets = comparison.data_sets
    signed: dict[Variant, dict[str, float]] = {}
    for variant in comparison.variants:
        entries = [comparison.only(data, variant) for data in data_sets]
        signed[variant] = {
            e.data: _sign(e) * round(e.mean, _DIGITS) for e in entries if e is not None and e.mean is not None
        }
    variants = [variant for variant in comparison.variants if 2 * len(signed[variant]) >= max(1, len(data_sets))]
    common = [data for data in data_sets if variants and all(data in signed[variant] for variant in variants)]
    left_out = []
    if few := [" ".join(variant) for variant in comparison.variants if variant not in variants]:
        left_out.append(f"Not ranked, with a score on fewer than half of the data sets: {', '.join(few)}.")
    if variants and (gaps := [data for data in data_sets if data not in common]):
        left_out.append(f"Not ranked over, since not all have a score there: {', '.join(gaps)}.")
    if not common:
        return {}, np.empty((0, 0)), left_out
    scores = np.array([[signed[variant][data] for variant in variants] for data in common])
    ranks = rankdata(-scores, axis=1).mean(axis=0)
    return dict(zip(variants, ranks.tolist(), strict=True)), scores, left_out


def _sign(entry: RunGroup) -> int:
    return -1 if entry.metric in LOWER_IS_BETTER else 1


def _holm(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests of one family with their corrected p-values."""
    if not tests:
        return []
    from statsmodels.stats.multitest import multipletests

    corrected = multipletests([test.p for test in tests], alpha=LEVEL, method="holm")[1]
    return [replace(test, p_holm=float(p)) for test, p in zip(tests, corrected, strict=True)]


def _repetitions(entry: RunGroup) -> dict[Any, float]:
    """Score by what distinguishes repetitions, their resample first; empty where that does not."""
    keys = []
    for run in entry.scored:
        p = run.record.protocol
        keys.append((p and p.resample, run.record.seed, p and (p.split_seed, p.fold)))
    return dict(zip(keys, entry.scores, strict=True)) if len(set(keys)) == len(keys) else {}


def _mean_by_resample(scores: dict[Any, float], repetitions: Sequence[Any]) -> np.ndarray:
    """The mean score of some repetitions in each of their resamples."""
    resamples = sorted({resample for resample, *_ in repetitions})
    return np.array([np.mean([scores[key] for key in repetitions if key[0] == resample]) for resample in resamples])


def _over_seeds(first: RunGroup, second: RunGroup) -> PairedTest | None:
    """A paired t-test over the repetitions that both have; None where they are few or all differ by the same.

    Over resamples, which share series, it is the corrected one of Nadeau and Bengio (2003). The seeds and folds of a
    resample share its series, so that its pair is the means over these.
    """
    from scipy.stats import t, ttest_rel

    a, b = _repetitions(first), _repetitions(second)
    common = sorted(a.keys() & b.keys(), key=str)
    is_resampled = len(resamples_of(first, second)) > 1
    if is_resampled:
        x, y = (_mean_by_resample(scores, common) for scores in (a, b))
    else:
        x, y = (np.array([scores[key] for key in common]) for scores in (a, b))
    if len(x) < MIN_SEEDS or np.allclose(x - y, (x - y)[0], rtol=0, atol=1e-9):
        return None
    difference = float((x - y).mean())
    pair = (first.data, first.variant, second.variant)
    if is_resampled:
        spread = math.sqrt(float((x - y).var(ddof=1)) * (1 / len(x) + _tested_per_trained(first)))
        law = t(df=len(x) - 1, loc=0, scale=spread)
        far = float(law.ppf(1 - LEVEL / 2))
        p = float(2 * law.sf(abs(difference)))
        return PairedTest(*pair, difference, difference - far, difference + far, len(x), "t-test, resamples", p)
    result = ttest_rel(x, y)
    interval = result.confidence_interval(1 - LEVEL)
    low, high = float(interval.low), float(interval.high)
    return PairedTest(*pair, difference, low, high, len(x), "t-test, seeds", float(result.pvalue))


def _tested_per_trained(entry: RunGroup) -> float:
    """Test series for each series of train, validation included."""
    protocols = [run.record.protocol for run in entry.scored if run.record.protocol is not None]
    return sum(p.num_test for p in protocols) / sum(p.num_train + p.num_val for p in protocols)


def _answers(first: RunGroup, second: RunGroup) -> list[list[Outcomes]] | None:
    """Of the runs of both; None where one is not known, the score is no fraction of them, or test series differ."""
    if first.metric not in ("accuracy", "balanced_accuracy") or len(resamples_of(first, second)) > 1:
        return None
    return outcomes_of(first, second)


def _over_groups(first: RunGroup, second: RunGroup) -> PairedTest | None:
    """A sign-flip test over the groups of the test series; None where there are none, or as for `_over_series`.

    Raises:
        UserError: the runs' predictions are not of the same series, or of too few groups.
    """
    known = _answers(first, second)
    if known is None or (groups := joining_groups(known[0][0].groups)) is None:
        return None
    num_groups = len(np.unique(groups))
    if few := too_few(num_groups):
        raise UserError(f"{first.data}: {few}")
    right = [np.mean([run.correct for run in kept], axis=0) for kept in known]
    differences, strata = right[0] - right[1], strata_of(known[0][0], first.metric)
    p = sign_flip_p(differences, strata, groups)
    pair = (first.data, first.variant, second.variant, *mean_over_groups(differences, strata, groups))
    return PairedTest(*pair, num_groups, "sign flips, test groups", p)


def _over_series(first: RunGroup, second: RunGroup) -> PairedTest | None:
    """A test over test series; None where the answers of a run are not known, or its score is no fraction of them.

    Raises:
        UserError: the runs' predictions are not of the same series.
    """
    known = _answers(first, second)
    if known is None or (groups := drawn_within(known[0][0], first.metric)) is None:
        return None
    right = [np.mean([answers.correct for answers in kept], axis=0) for kept in known]
    differences = right[0] - right[1]
    difference, drawn, low, high = bootstrapped([differences[group] for group in groups])
    p = _two_sided(difference, drawn)
    name = "bootstrap, test series"
    if first.metric == "accuracy" and len(known[0]) == len(known[1]) == 1:
        name, p = "McNemar, test series", _mcnemar(right[0] > 0, right[1] > 0)
    return PairedTest(first.data, first.variant, second.variant, difference, low, high, len(differences), name, p)


def _two_sided(value: float, drawn: np.ndarray) -> float:
    """How often resamples are as far from a difference as that is from 0."""
    return float((np.sum(np.abs(drawn - value) >= abs(value) - 1e-12) + 1) / (len(drawn) + 1))


def _mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    from statsmodels.stats.contingency_tables import mcnemar

    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    return float(mcnemar(table, exact=True).pvalue) if table[0][1] + table[1][0] else 1.0
