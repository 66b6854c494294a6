"""What all compared have, means, ranks and tests against the plain formulas."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from krontime.reports.rivals.standing import our_scores, pairings, standing


def figures(**by_classifier: dict[str, list[float | None]]):
    return {
        name: {(data, k): x for data, row in by_data.items() for k, x in enumerate(row) if x is not None}
        for name, by_data in by_classifier.items()
    }


OURS = figures(a={"D": [0.9, 0.7], "E": [0.5, 0.5], "F": [0.2]}, b={"D": [0.8, 0.8, 0.8], "E": [0.6, 0.6]})


def test_our_scores_are_means_over_seeds_by_resample(beside):
    comparison = beside({"a": {"D": [0.5, 0.7]}}, seeds=(0, 1))
    assert our_scores(comparison, "accuracy")["a"] == pytest.approx({("D", 0): 0.51, ("D", 1): 0.71})
    assert our_scores(comparison, "nll") == {"a": {}}


def test_only_places_that_all_compared_have_are_compared():
    theirs = figures(
        x={"D": [0.5, 0.6, 0.1], "E": [0.7, 0.7], "F": [1.0]},
        y={"D": [0.9, 0.9], "E": [0.1, 0.1]},
        z={"D": [0.9]},  # lacks what two of three have
    )
    shared_places = standing("accuracy", OURS, theirs)
    assert shared_places.places == (("D", 0), ("D", 1), ("E", 0), ("E", 1))
    assert (shared_places.ours, shared_places.others, shared_places.left_out) == (("a", "b"), ("x", "y"), ("z",))
    np.testing.assert_allclose(shared_places.means, [[0.8, 0.8, 0.55, 0.9], [0.5, 0.6, 0.7, 0.1]])
    np.testing.assert_allclose(shared_places.ranks(), [(2.5 + 3) / 2, (2.5 + 2) / 2, (4 + 1) / 2, (1 + 4) / 2])


def test_a_place_that_few_published_costs_no_classifier():
    theirs = figures(x={"D": [0.5, 0.6], "E": [0.5, 0.5]}, y={"D": [0.5, 0.6]}, z={"D": [0.5, 0.6]})
    shared_places = standing("accuracy", OURS, theirs)
    assert shared_places.data_sets == ["D"]
    assert shared_places.others == ("x", "y", "z")


def test_a_metric_that_is_not_defined_for_one_of_ours_leaves_it_out():
    shared_places = standing("nll", {"a": {("D", 0): 0.4}, "ridge": {}}, figures(x={"D": [0.5]}))
    assert (shared_places.ours, shared_places.not_ours) == (("a",), ("ridge",))
    assert shared_places.ranks().tolist() == [1, 2]  # lower is better


def test_nothing_in_common_is_no_standing():
    assert standing("accuracy", OURS, figures(x={"G": [0.5]})) is None
    assert standing("accuracy", OURS, {}) is None


def test_a_figure_with_fewer_digits_ties():
    """Published figures have five digits, ours all that float32 has."""
    own = figures(a={f"D{n}": [2 / 3] for n in range(5)})
    shared_places = standing("accuracy", own, figures(x={f"D{n}": [0.66667] for n in range(5)}))
    [pair] = pairings(shared_places, "a")
    assert (pair.wins, pair.draws, pair.losses) == (0, 5, 0)
    assert shared_places.ranks().tolist() == [1.5, 1.5]


def test_pairings_are_wilcoxon_with_holms_correction():
    rng = np.random.default_rng(0)
    data_sets = [f"D{number:02}" for number in range(12)]
    own = {"a": {(data, 0): float(x) for data, x in zip(data_sets, rng.random(12), strict=True)}}
    theirs = {name: {(data, 0): float(x) for data, x in zip(data_sets, rng.random(12), strict=True)} for name in "xyz"}
    theirs["z"] = dict(own["a"])
    shared_places = standing("accuracy", own, theirs)
    pairs = pairings(shared_places, "a")
    differences = [
        np.array([round(own["a"][data, 0], 4) - round(theirs[name][data, 0], 4) for data in data_sets]) for name in "xy"
    ]
    ps = [stats.wilcoxon(d).pvalue for d in differences]
    expected = multipletests([*ps, 1.0], method="holm")[1]
    assert [pair.other for pair in pairs] == ["x", "y", "z"]
    np.testing.assert_allclose([pair.p_holm for pair in pairs], expected)
    for pair, difference in zip(pairs, differences, strict=False):
        assert (pair.wins, pair.draws, pair.losses) == ((difference > 0).sum(), 0, (difference < 0).sum())
        assert pair.difference == pytest.approx(difference.mean(), abs=1e-4)
        normal = 1.96 * difference.std() / np.sqrt(12)
        assert (pair.low, pair.high) == pytest.approx(
            (difference.mean() - normal, difference.mean() + normal), abs=0.03
        )
    assert (pairs[2].wins, pairs[2].draws, pairs[2].losses, pairs[2].p_holm) == (0, 12, 0, 1.0)
    assert (pairs[2].low, pairs[2].high) == (0, 0)
