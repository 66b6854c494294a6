"""Each test against the plain formula, and what it is made on."""

from math import comb
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from krontime.reports.comparison.collect import Stored
from krontime.reports.comparison.compare import compare
from krontime.reports.comparison.intervals import Interval, intervals
from krontime.reports.comparison.significance import write_significance
from krontime.reports.comparison.statistics import mean_ranks, on_each_data_set, over_data_sets


@pytest.fixture(scope="session")
def scored(make_record):
    """A comparison from `{model: {data: accuracies of seeds 0, 1, ...}}`."""

    def make(scores, **options):
        records = [
            make_record(model=model, data=data, seed=seed, accuracy=accuracy)
            for model, by_data in scores.items()
            for data, accuracies in by_data.items()
            for seed, accuracy in enumerate(accuracies)
        ]
        return compare([Stored(record, Path("nowhere")) for record in records], **options)

    return make


def across(*means: float) -> dict[str, list[float]]:
    return {f"data{number}": [mean] for number, mean in enumerate(means)}


def test_wilcoxon_over_data_sets_with_holms_correction(scored):
    high, low = [0.9 + number / 1000 for number in range(8)], [0.5] * 8
    mixed = [value - (-1) ** number * number / 100 for number, value in enumerate(high)]
    tests = over_data_sets(scored({"a": across(*high), "b": across(*low), "c": across(*mixed)}))
    assert [(test.first[0], test.second[0], test.n) for test in tests] == [("a", "b", 8), ("a", "c", 8), ("b", "c", 8)]
    assert tests[0].p == pytest.approx(2 / 2**8)  # all signs alike
    assert tests[0].difference == pytest.approx(np.mean(high) - 0.5)
    assert tests[0].p_holm == pytest.approx(3 * tests[0].p)
    assert tests[2].p_holm == pytest.approx(3 * tests[2].p)  # not less than the smaller one's
    assert tests[1].p_holm == pytest.approx(tests[1].p)  # the largest is left as it is


def test_only_data_sets_with_both_scores_are_paired(scored):
    comparison = scored({"a": across(0.9, 0.8, 0.7), "b": across(0.8, 0.7)})
    assert [test.n for test in over_data_sets(comparison)] == [2]
    assert over_data_sets(scored({"a": across(0.9), "b": across(0.8)})) == []
    [same] = over_data_sets(scored({"a": across(0.9, 0.8), "b": across(0.9, 0.8)}))
    assert same.p == 1


def test_mean_ranks_share_ties_and_turn_round_for_losses(scored):
    scores = {"a": across(0.9, 0.5), "b": across(0.9, 0.6), "c": across(0.1, 0.1)}
    ranks, ranked, left_out = mean_ranks(scored(scores))
    assert ranks == {("a",): 1.75, ("b",): 1.25, ("c",): 3.0}
    assert (ranked.shape, left_out) == ((2, 3), [])
    scores["d"] = {"data0": [0.3]}
    assert mean_ranks(scored(scores))[0] == {("a",): 1.5, ("b",): 1.5, ("c",): 4.0, ("d",): 3.0}
    ranks, ranked, _ = mean_ranks(scored({"a": {"D": [0.5]}}, metric="macro_f1"))
    assert (ranks, ranked.shape) == ({}, (0, 0))


@pytest.mark.parametrize(
    ("strong", "ranked", "said"),
    [
        (across(0.9, 0.9, 0.9), ["weak0", "strong", "weak1"], []),
        ({"data0": [0.9], "data2": [0.9]}, ["weak0", "strong", "weak1"], ["not all have a score there: data1."]),
        ({"data1": [0.9]}, ["weak0", "weak1"], ["fewer than half of the data sets: strong."]),
    ],
)
def test_no_variant_goes_unranked_for_want_of_a_few_cells(strong, ranked, said, scored):
    scores = {"weak0": across(0.5, 0.6, 0.5), "weak1": across(0.4, 0.4, 0.4), "strong": strong}
    ranks, table, left_out = mean_ranks(scored(scores))
    assert {name for (name,) in ranks} == set(ranked)
    assert len(left_out) == len(said)
    assert all(line.endswith(end) for line, end in zip(left_out, said, strict=True))
    if "strong" in ranked:
        assert ranks["strong",] == 1.0
        assert len(table) == 3 - len(said)


def test_five_seeds_allow_a_paired_t_test(scored):
    a, b = [0.9, 0.92, 0.91, 0.95, 0.9], [0.8, 0.85, 0.82, 0.8, 0.84]
    [test], _ = on_each_data_set(scored({"a": {"D": a}, "b": {"D": b}}))
    expected = stats.ttest_rel(a, b)
    assert (test.data, test.n, test.name) == ("D", 5, "t-test, seeds")
    assert test.p == test.p_holm == pytest.approx(expected.pvalue)
    assert (test.low, test.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert on_each_data_set(scored({"a": {"D": a[:4]}, "b": {"D": b[:4]}}))[0] == []
    assert on_each_data_set(scored({"a": {"D": a}, "b": {"D": [x - 0.1 for x in a]}}))[0] == []  # nothing varies


def test_resamples_allow_the_corrected_t_test(make_record, make_protocol):
    """80 + 20 series train and 100 test: (100 / 100) is added to 1 / n, since resamples share series."""
    scores = {"a": [0.9, 0.92, 0.91, 0.95, 0.9], "b": [0.8, 0.85, 0.82, 0.8, 0.84]}
    runs = []
    for model, accuracies in scores.items():
        for resample, accuracy in enumerate(accuracies):
            protocol = make_protocol(resample=resample, resampled_by="stratified" if resample else None)
            config = {"seed": 0, "data": {"resample": resample}, "model": {"name": model}}
            record = make_record(model=model, accuracy=accuracy, protocol=protocol, config=config)
            runs.append(Stored(record, Path("nowhere")))
    [test], problems = on_each_data_set(compare(runs))
    differences = np.subtract(*scores.values())
    expected = differences.mean() / np.sqrt(differences.var(ddof=1) * (1 / 5 + 1))
    assert (test.name, test.n, problems) == ("t-test, resamples", 5, [])
    assert test.p == pytest.approx(2 * stats.t.sf(expected, df=4))
    assert (test.low + test.high) / 2 == pytest.approx(differences.mean())
    assert (test.high - test.low) / 2 == pytest.approx(stats.t.ppf(0.975, 4) * differences.mean() / expected)


@pytest.mark.parametrize("num_resamples", [2, 5])
def test_seeds_and_folds_of_a_resample_are_one_pair(num_resamples, make_record, make_protocol):
    rng = np.random.default_rng(0)
    scores = 0.8 + rng.normal(0, 0.02, (2, num_resamples, 1)) + rng.normal(0, 0.002, (2, num_resamples, 6))
    runs = []
    for model, resample, repetition in np.ndindex(scores.shape):
        seed, fold = divmod(repetition, 2)
        by = "stratified" if resample else None
        protocol = make_protocol(resample=resample, resampled_by=by, split_method="kfold", fold=fold)
        data = {"resample": resample, "validation": {"fold": fold}}
        config = {"seed": seed, "data": data, "model": {"name": "ab"[model]}}
        accuracy = float(scores[model, resample, repetition])
        runs.append(make_record(model="ab"[model], accuracy=accuracy, seed=seed, protocol=protocol, config=config))
    tests, problems = on_each_data_set(compare([Stored(record, Path("nowhere")) for record in runs]))
    if num_resamples == 2:
        assert tests == []
        assert problems[0].startswith("Pairs without a test, having fewer than 5 seeds (or resamples) in common")
        return
    [test] = tests
    differences = np.subtract(*scores.mean(axis=2))
    expected = differences.mean() / np.sqrt(differences.var(ddof=1) * (1 / 5 + 1))
    assert (test.name, test.n) == ("t-test, resamples", 5)
    assert test.p == pytest.approx(2 * stats.t.sf(abs(expected), df=4))


def test_mcnemar_between_two_runs(predicted):
    a, b = np.arange(60) < 50, (np.arange(60) >= 8) & (np.arange(60) < 48)  # a alone: 10, b alone: 0
    b[55:57] = True  # b alone: 2
    [test], notes = on_each_data_set(predicted({"a": [a], "b": [b]}, ["x", "y"] * 30))
    assert (test.name, test.n, notes) == ("McNemar, test series", 60, [])
    assert test.difference == pytest.approx(8 / 60)
    assert test.p == pytest.approx(2 * sum(comb(12, k) for k in range(3)) / 2**12)
    assert test.low < test.difference < test.high


def test_bootstrap_between_several_runs(predicted):
    rng = np.random.default_rng(1)
    good, bad = [rng.random(200) < 0.9 for _ in range(3)], [rng.random(200) < 0.6 for _ in range(2)]
    comparison = predicted({"a": good, "b": bad, "c": good}, ["x", "y"] * 100)
    tests, _ = on_each_data_set(comparison)
    assert [test.name for test in tests] == ["bootstrap, test series"] * 3
    difference = np.mean(good, axis=0) - np.mean(bad, axis=0)
    half = 1.96 * difference.std() / np.sqrt(200)
    assert tests[0].difference == pytest.approx(difference.mean())
    assert (tests[0].low, tests[0].high) == pytest.approx(
        (difference.mean() - half, difference.mean() + half), abs=0.01
    )
    assert tests[0].p < 0.001
    assert tests[1].p == 1  # the same runs
    assert tests[0].p_holm == pytest.approx(3 * tests[0].p)
    assert on_each_data_set(comparison)[0] == tests  # the same every time


def test_the_bootstrap_of_balanced_accuracy_weighs_classes_alike(predicted):
    labels = np.array(["x"] * 90 + ["y"] * 10)
    a, b = labels == "x", labels == "y"
    [test], _ = on_each_data_set(predicted({"a": [a], "b": [b]}, labels, balanced=True))
    assert test.name == "bootstrap, test series"
    assert test.difference == pytest.approx(0)  # accuracy would say 0.8
    assert test.p == 1


def test_no_test_over_series_without_the_predictions_of_every_run(predicted, tmp_path):
    right = [np.arange(40) < 30] * 2
    comparison = predicted({"a": right, "b": right}, ["x", "y"] * 20)
    (tmp_path / "b" / "1" / "test_predictions.parquet").unlink()
    tests, [note] = on_each_data_set(comparison)
    assert tests == []
    assert note.startswith("Pairs without a test")
    assert note.endswith(": ACSF1 (1).")
    assert on_each_data_set(predicted({"a": right, "b": right}, ["x", "y"] * 20, metric="macro_f1")) == ([], [])


def test_predictions_of_other_series_are_told(predicted):
    right = [np.arange(40) < 30]
    shifted = {"b": np.arange(1, 41)}
    tests, notes = on_each_data_set(predicted({"a": right, "b": right}, ["x", "y"] * 20, index=shifted))
    assert tests == []
    assert notes == ["ACSF1: the test predictions of a and b are of different series; no test between them."]


@pytest.mark.parametrize("depths", [(1,), (1, 2), (3, 1, 2)])
def test_of_a_cell_with_several_configs_that_of_most_runs_is_tested(depths, make_record):
    records = [
        make_record(
            model=model,
            data=data,
            seed=seed,
            accuracy=0.5 + depth / 10,
            config={"seed": seed, "model": {"depth": depth, "name": model}},
        )
        for model in ("a", "b")
        for data in ("A", "B", "C")
        for depth in (depths if (model, data) == ("a", "A") else (1,))
        for seed in range(2 if depth == 1 else 1)
    ]
    comparison = compare([Stored(record, Path("nowhere")) for record in records])
    assert [test.n for test in over_data_sets(comparison)] == [3]
    assert comparison.only("A", ("a",)).mean == pytest.approx(0.6)


def in_groups(num_groups: int, size: int, error: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which series are right, where all of a group are or none; and the groups."""
    groups = np.repeat(np.arange(num_groups), size)
    return (np.random.default_rng(seed).random(num_groups) > error)[groups], groups


@pytest.mark.parametrize(("num_groups", "size"), [(30, 10), (20, 20), (60, 5)])
@pytest.mark.parametrize("balanced", [True, False])
def test_series_of_a_group_stand_or_fall_together(num_groups, size, balanced, predicted):
    a, groups = in_groups(num_groups, size, 0.2, seed=1)
    b, _ = in_groups(num_groups, size, 0.4, seed=2)
    labels = np.array(["x", "y"] * (len(a) // 2))
    [alone], _ = on_each_data_set(predicted({"a": [a], "b": [b]}, labels, balanced=balanced))
    [test], _ = on_each_data_set(predicted({"a": [a], "b": [b]}, labels, balanced=balanced, groups=groups))
    assert (test.name, test.n) == ("sign flips, test groups", num_groups)
    assert test.difference == pytest.approx(alone.difference)
    assert test.p > 5 * alone.p
    difference = (a.astype(float) - b)[::size]
    half = 1.96 * difference.std() / np.sqrt(num_groups)
    assert (test.high - test.low) / 2 == pytest.approx(half, rel=0.1)
    [result, _], _ = intervals(predicted({"a": [a], "b": [b]}, labels, balanced=balanced, groups=groups))
    assert result.n == num_groups
    assert (result.high - result.low) / 2 == pytest.approx(1.96 * a[::size].std() / np.sqrt(num_groups), rel=0.1)


def test_groups_go_before_seeds(predicted):
    runs = [in_groups(20, 10, 0.2, seed=seed)[0] for seed in range(6)]
    others = [in_groups(20, 10, 0.4, seed=seed + 9)[0] for seed in range(6)]
    groups = in_groups(20, 10, 0, 0)[1]
    [test], _ = on_each_data_set(predicted({"a": runs, "b": others}, ["x", "y"] * 100, groups=groups))
    assert (test.name, test.n) == ("sign flips, test groups", 20)


@pytest.mark.parametrize(
    ("num_groups", "said"), [(1, "are all of one group, which says nothing of other groups"), (4, "are of 4 groups")]
)
def test_few_groups_have_neither_test_nor_interval(num_groups, said, predicted):
    right = {name: [np.arange(200) % 10 > errors] * 6 for name, errors in (("a", 2), ("b", 4))}
    comparison = predicted(right, ["x", "y"] * 100, groups=np.arange(200) % num_groups)
    for found, notes in (on_each_data_set(comparison), intervals(comparison)):
        assert found == []
        [note] = notes
        assert note.startswith(f"ACSF1: the test series {said}")


def test_files(scored, tmp_path):
    good, bad = [0.9, 0.92, 0.91, 0.95, 0.9], [0.1, 0.15, 0.12, 0.1, 0.14]
    comparison = scored({"a": {"D": good, "E": [0.9]}, "b": {"D": bad, "E": [0.1]}})
    ranks, scores, _ = mean_ranks(comparison)
    tests, notes = on_each_data_set(comparison)
    single = [Interval("D", ("a",), "balanced_accuracy", 0.916, 0.85, 0.98, 60)]
    assert write_significance(ranks, len(scores), [], tests, single, tmp_path, [*notes, "no diagram"])
    text = (tmp_path / "significance.md").read_text()
    assert "**Mean rank over 2 data sets, of the variants with a score on each**" in text
    assert "| a | 1.00 |\n| b | 2.00 |" in text
    assert re_row(text) == "| D | a | b | +0.794 | +0.750 to +0.838 | 5 | t-test, seeds | &lt; 0.001 | **&lt; 0.001** |"
    assert "<sup>2</sup> no diagram" in text
    assert "| D | a | balanced accuracy | 0.916 | 0.850 to 0.980 | 60 |" in text
    assert 'D,a,,,0.85,0.98,60,"interval, balanced_accuracy",,,,0.916' in (tmp_path / "significance.csv").read_text()
    assert "\\textbf{\\textless{} 0.001}" in (tmp_path / "significance.tex").read_text()
    assert (tmp_path / "significance.csv").read_text().splitlines()[1].startswith("D,a,b,0.794,0.75")
    assert not write_significance({}, 0, [], [], [], tmp_path)


def re_row(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("| D |"))
