import numpy as np
import pytest
from scipy.stats import binomtest

from krontime.reports.comparison.series_bootstrap import joining_groups
from krontime.reports.page import content
from krontime.reports.page.decisions import decided_for, decisions
from krontime.runs.predictions import Predictions


def scored(num_series: int = 200, accuracy: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True classes, predicted ones, and probabilities of three classes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, num_series)
    predicted = np.where(rng.random(num_series) < accuracy, truth, (truth + 1) % 3)
    probability = np.full((num_series, 3), 0.1)
    probability[np.arange(num_series), predicted] = 0.8
    return truth, predicted, probability


def test_an_interval_holds_the_score_and_shrinks_with_more_series():
    widths = []
    for num_series in (50, 5000):
        truth, predicted, probability = scored(num_series)
        intervals = content.score_intervals(truth, predicted, probability, None)
        low, high = intervals["accuracy"]
        assert low < (truth == predicted).mean() < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_groups_widen_the_interval():
    truth, predicted, probability = scored(600)
    groups = np.arange(600) // 60
    predicted = np.where(groups < 3, (truth + 1) % 3, truth)  # whole groups are wrong
    alone = content.score_intervals(truth, predicted, probability, None)["accuracy"]
    grouped = content.score_intervals(truth, predicted, probability, groups)["accuracy"]
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_no_error_at_all_has_an_interval_with_a_width():
    truth, _, probability = scored(40, accuracy=1.0)
    low, high = content.score_intervals(truth, truth, probability, None)["accuracy"]
    assert low < 0.95
    assert high == pytest.approx(1.0)


def test_groups_that_are_all_right_have_an_interval_with_the_width_of_so_few_groups():
    truth, _, probability = scored(40)
    interval = content.score_intervals(truth, truth, probability, np.arange(40) // 8)["accuracy"]
    few = binomtest(5, 5).proportion_ci(method="wilson")
    assert interval == (pytest.approx(few.low), pytest.approx(few.high))


def test_the_interval_of_the_log_likelihood_holds_it_however_sure_a_model_is():
    truth = np.array([0, 1] * 20)
    probability = np.tile(np.array([[1.0, 1e-30]]), (40, 1))
    nll = -np.log(probability[np.arange(40), truth]).mean()
    interval = content.score_intervals(truth, np.zeros(40, int), probability, None)["nll"]
    assert interval.low < nll < interval.high


@pytest.mark.parametrize(("groups", "join"), [([0] * 6, True), (range(6), False), ([0, 0, 0, 1, 1, 2], True)])
def test_groups_of_one_series_each_are_no_groups(groups, join):
    assert (joining_groups(np.array(groups)) is not None) == join


@pytest.mark.parametrize("num_groups", [1, 4])
def test_few_groups_have_no_interval(num_groups):
    truth, predicted, probability = scored(40)
    assert content.score_intervals(truth, predicted, probability, np.arange(40) % num_groups) == {}


def test_confusion_counts_every_series_once():
    truth, predicted, _ = scored()
    counts = content.confusion_counts(truth, predicted, 3)
    assert counts.sum() == len(truth)
    assert np.trace(counts) == (truth == predicted).sum()
    assert counts[0, 1] == ((truth == 0) & (predicted == 1)).sum()


def test_reliability_counts_every_series_once_and_leaves_empty_bins_out():
    truth, predicted, probability = scored()
    bins = content.reliability(truth, predicted, probability)
    assert len(bins) == 1
    assert (bins[0].confidence, bins[0].count) == (pytest.approx(0.8), len(truth))
    assert bins[0].accuracy == pytest.approx((truth == predicted).mean())


def test_learning_curves_are_read_by_epoch(tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text(
        "epoch,step,train/loss_epoch,val/nll\n0,4,1.5,\n0,4,,0.9\n1,8,1.0,nan\n"
    )
    assert content.learning_curves(tmp_path) == {"train/loss_epoch": ([1, 2], [1.5, 1.0]), "val/nll": ([1], [0.9])}
    assert content.learning_curves(tmp_path / "nothing") == {}


def test_sets_and_thresholds_are_held_against_test_series():
    parts = []
    for seed, num_series in ((0, 300), (1, 2000)):
        truth, _, probability = scored(num_series, seed=seed)
        parts.append(Predictions.from_codes(np.arange(num_series), truth, probability, ("a", "b", "c")))
    decided = decided_for(*parts)
    covered = [each.seen[0] for each in decided[:3]]
    assert covered == sorted(covered)
    assert covered[1] > 0.88
    assert [each.rule.class_name for each in decided[3:]] == ["a", "b", "c"]
    assert all(each.seen[0] > 0.93 for each in decided[3:])
    section = decisions(decided)
    assert section is not None
    assert [len(table.rows) for table in section.tables] == [3, 3]
    section = decisions(decided_for(parts[0], None))
    assert section is not None
    assert [len(table.header) for table in section.tables] == [2, 4]
    assert all(len(row) == len(table.header) for table in section.tables for row in table.rows)
    few = Predictions.from_codes(np.arange(6), truth[:6], probability[:6], ("a", "b", "c"))
    assert sum(each.rule is None for each in decided_for(few, parts[1])) >= 4
