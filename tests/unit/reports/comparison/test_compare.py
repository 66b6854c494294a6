"""What differs in the seed alone is averaged; everything else is kept apart and noted, and nothing is dropped."""

import statistics
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krontime.errors import UserError
from krontime.reports.comparison.collect import Stored
from krontime.reports.comparison.compare import compare
from krontime.runs.record import GitState, Metrics, Status
from krontime.runs.remarks import Remarks, Unrecorded


def of(records, **options):
    return compare([Stored(record, Path("nowhere")) for record in records], **options)


def entries(records, **options):
    """`(data, protocol, variant, n, mean)` of every entry."""
    return [
        (e.data, e.protocol, *e.variant, len(e.scores), e.mean and round(e.mean, 6))
        for e in of(records, **options).entries
    ]


def notes(records, **options):
    return [note.text for note in of(records, **options).notes]


@pytest.fixture(scope="session")
def seeds(make_record):
    """Completed records of seeds 0, 1, ... with the given accuracies."""

    def make(*accuracies: float, **changes):
        return [make_record(seed=seed, accuracy=accuracy, **changes) for seed, accuracy in enumerate(accuracies)]

    return make


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.randoms())
def test_mean_and_deviation_over_seeds_whatever_the_order(seeds, accuracies, random):
    records = seeds(*accuracies)
    random.shuffle(records)
    [entry] = of(records).entries
    assert entry.mean == pytest.approx(statistics.fmean(accuracies))
    assert entry.deviation == pytest.approx(statistics.stdev(accuracies), abs=1e-12)
    assert [run.record.seed for run in entry.runs] == list(range(len(accuracies)))


def test_the_metric_follows_the_balance_of_the_classes_unless_it_is_chosen(make_record, make_protocol):
    uneven = make_record(protocol=make_protocol(train_class_counts={"N": 80, "V": 40}), accuracy=0.9)
    even = make_record(protocol=make_protocol(train_class_counts={"N": 80, "V": 41}), accuracy=0.9)
    assert [of([record]).entries[0].metric for record in (uneven, even)] == ["balanced_accuracy", "accuracy"]
    assert of([uneven], metric="accuracy").entries[0].metric == "accuracy"


def test_a_score_that_is_not_defined_is_not_averaged(make_record):
    records = [make_record(seed=0, balanced_accuracy=0.6), make_record(seed=1, balanced_accuracy=None)]
    [entry] = of(records, metric="balanced_accuracy").entries
    assert entry.scores == [0.6]
    assert len(entry.completed) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"scaling": "none"},
        {"split_method": "kfold"},
        {"selection_metric": "val/loss"},
        {"data_sha256": "cd" * 32},
        {"num_test": 99},
        {"preparation": {"resample_length": 100}},
        {"windowing": {"length": 10}},
        {"group": "patient"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_protocol_is_kept_apart_and_noted(seeds, make_protocol, make_record, change):
    records = [*seeds(0.8, 0.8), make_record(seed=2, accuracy=0.2, protocol=make_protocol(**change))]
    assert entries(records) == [("ACSF1", 0, "krontime", 2, 0.8), ("ACSF1", 1, "krontime", 1, 0.2)]
    [note] = notes(records)
    assert note.startswith(f"ACSF1: protocols differ ({next(iter(change))}")
    assert note.endswith("; kept apart, not comparable.")


def test_a_split_that_follows_the_seed_is_one_protocol(make_protocol, make_record):
    records = [
        make_record(seed=seed, protocol=make_protocol(split_seed=seed, num_train=80 - seed, num_val=20 + seed))
        for seed in range(3)
    ]
    assert entries(records) == [("ACSF1", 0, "krontime", 3, 0.87)]


def test_one_split_seed_with_two_sizes_is_two_protocols(make_protocol, make_record):
    records = [make_record(), make_record(model="tcn", protocol=make_protocol(num_train=90, num_val=10))]
    assert len(of(records).rows) == 2
    assert "protocols differ (num_train: 80 / 90, num_val: 20 / 10)" in notes(records)[0]


def test_folds_of_one_seed_all_count(make_protocol, make_record):
    records = [
        make_record(
            accuracy=accuracy,
            protocol=make_protocol(split_method="kfold", fold=fold),
            config={"seed": 0, "data": {"fold": fold}},
        )
        for fold, accuracy in enumerate((0.2, 0.4, 0.6))
    ]
    assert entries(records) == [("ACSF1", 0, "krontime", 3, 0.4)]


def resample(make_record, make_protocol, resample: int, by: str | None, **changes):
    """A record of one resample."""
    fields = {"resample": resample, "resampled_by": by, **changes.pop("protocol", {})}
    config = {"seed": 0, "data": {"resample": resample}}
    return make_record(config=config, protocol=make_protocol(**fields), **changes)


def test_resamples_of_one_seed_all_count(make_protocol, make_record):
    """Also where another number of test series is longer than what is trained on."""
    records = [
        resample(
            *(make_record, make_protocol, number, "stratified" if number else None),
            accuracy=accuracy,
            protocol={"num_test_cropped": number},
        )
        for number, accuracy in enumerate((0.2, 0.4, 0.6))
    ]
    assert entries(records) == [("ACSF1", 0, "krontime", 3, 0.4)]
    assert notes(records) == []
    alone = resample(make_record, make_protocol, 0, None, model="tcn")
    assert notes([*records, alone]) == ["ACSF1, tcn: no run on resample 1, 2."]


def test_resamples_by_group_may_differ_in_their_size(make_protocol, make_record):
    records = [
        resample(make_record, make_protocol, number, "group" if number else None, protocol={"num_test": 100 - number})
        for number in range(3)
    ]
    assert entries(records) == [("ACSF1", 0, "krontime", 3, 0.87)]


def config(seed: int, depth: int) -> dict:
    return {"seed": seed, "data": {"split_seed": seed}, "model": {"depth": depth, "sizes": [depth, 2]}}


def test_another_config_is_kept_apart_and_noted(make_record):
    records = [
        make_record(seed=0, accuracy=0.8, config=config(0, 2)),
        make_record(seed=1, accuracy=0.9, config=config(1, 2)),
        make_record(seed=2, accuracy=0.1, config=config(2, 3)),
    ]
    assert entries(records) == [("ACSF1", 0, "krontime", 2, 0.85), ("ACSF1", 0, "krontime", 1, 0.1)]
    assert (
        "ACSF1, krontime: configs differ (model.depth: 2 / 3, model.sizes: [2, 2] / [3, 2]); one line each."
        in notes(records)
    )


def test_config_keys_tell_variants_apart(make_record):
    records = [
        make_record(seed=seed, accuracy=depth / 20, config=config(seed, depth)) for depth in (10, 2) for seed in (0, 1)
    ]
    records.append(make_record(model="tcn", accuracy=0.3, config={"seed": 0, "model": {"kernel_size": 5}}))
    result = of(records, keys=["model.depth", "model.sizes"], seeds=[0])
    assert result.variants == (("2", "2 x 2"), ("10", "10 x 2"), ("-", "-"))
    assert [len(e.scores) for e in result.entries] == [2, 2, 1]
    assert result.notes == ()


def test_a_part_of_the_model_is_named_by_its_class(make_record):
    tokenizers = [{"_target_": "krontime.models.layers.tokenizers.ConvPatch", "width": 3}, None, True]
    records = [make_record(config={"seed": 0, "tokenizer": tokenizer}) for tokenizer in tokenizers]
    assert of(records, keys=["tokenizer"]).variants == (("-",), ("ConvPatch",), ("true",))


def test_a_key_that_no_record_has_is_a_mistake(make_record):
    with pytest.raises(UserError, match=r"rows: 'model\.dept': expected a config key that a record has"):
        of([make_record()], keys=["model.depth", "model.dept"])


def test_a_missing_seed_is_noted(seeds):
    records = [*seeds(0.8, 0.9, 0.7), *seeds(0.5, 0.6, model="tcn")]
    assert notes(records) == ["ACSF1, tcn: no run with seed 2."]
    assert notes(records, seeds=[0, 1]) == []
    assert notes(records, seeds=[0, 5]) == [f"ACSF1, {model}: no run with seed 5." for model in ("krontime", "tcn")]


def test_each_number_of_training_series_is_a_row_of_its_own(seeds, make_record, make_protocol):
    def limited(most, *accuracies):
        protocol = make_protocol(num_train=most or 2000)
        return [
            make_record(
                seed=seed,
                accuracy=accuracy,
                data="FSDD",
                config={"seed": seed, "data": {"validation": {"max_train": most}}},
                protocol=protocol,
            )
            for seed, accuracy in enumerate(accuracies)
        ]

    records = [*limited(None, 0.9), *limited(1000, 0.8, 0.7), *limited(60, 0.5), *seeds(0.4, data="Abc")]
    assert [row[:1] + row[3:] for row in entries(records)] == [
        ("Abc", 1, 0.4),
        ("FSDD, at most 60 training series", 1, 0.5),
        ("FSDD, at most 1,000 training series", 2, 0.75),
        ("FSDD", 1, 0.9),
    ]
    assert notes(records) == []
    assert of(records).data_sets == ["Abc", "FSDD"]


def test_one_score_for_all_numbers_of_training_series(make_record, make_protocol):
    """That of all series: a small part of balanced classes can be imbalanced by its rounding."""

    def limited(most, counts):
        protocol = make_protocol(num_train=sum(counts.values()), train_class_counts=counts)
        return make_record(config={"data": {"validation": {"max_train": most}}}, protocol=protocol)

    assert {e.metric for e in of([limited(3, {"a": 1, "b": 2}), limited(None, {"a": 20, "b": 20})]).entries} == {
        "accuracy"
    }
    assert {e.metric for e in of([limited(4, {"a": 2, "b": 2}), limited(None, {"a": 40, "b": 20})]).entries} == {
        "balanced_accuracy"
    }


def test_a_job_run_again_counts_once_by_its_newest_completed_run(make_record):
    old = make_record(accuracy=0.1)
    later = {"started_at": old.started_at + timedelta(days=1), "finished_at": old.started_at + timedelta(days=2)}
    failed = make_record(status=Status.FAILED, **later)
    assert entries([old, failed]) == [("ACSF1", 0, "krontime", 1, 0.1)]
    again = [make_record(accuracy=0.2, **later), old]
    assert entries(again) == [("ACSF1", 0, "krontime", 1, 0.2)]
    assert notes(again) == ["ACSF1, krontime: runs of seed 0 do not repeat; the newest is shown."]


def test_runs_that_did_not_end_well_are_counted(make_record):
    records = [
        make_record(accuracy=0.5),
        make_record(seed=1, status=Status.FAILED),
        make_record(seed=2, status=Status.OUT_OF_MEMORY, protocol=None),
    ]
    [entry] = of(records).entries
    assert [entry.count(status) for status in Status] == [1, 1, 1, 0]
    [entry] = of(records[2:]).entries
    assert entry.mean is None


def test_data_without_a_test_split_has_no_score(make_protocol, make_record):
    [entry] = of([make_record(protocol=make_protocol(num_test=0), metrics=Metrics(val={"accuracy": 0.9}))]).entries
    assert entry.scores == []


@pytest.mark.parametrize("budget", ["00:00:02:05", {"minutes": 2, "seconds": 5}, None, "soon", {"years": 1}])
def test_runs_that_used_all_of_their_time_are_counted(make_record, budget):
    records = [
        make_record(seed=seed, train_time_s=time_s, config={"seed": seed, "trainer": {"max_time": budget}})
        for seed, time_s in enumerate((125.4, 124.9, 999.0))
    ]
    [entry] = of(records).entries
    known = budget in ("00:00:02:05", {"minutes": 2, "seconds": 5})
    assert entry.num_out_of_time == (2 if known else 0)


@pytest.mark.parametrize("fitted_on", ["train", "train_and_validation"])
def test_a_reference_classifier_shares_the_row_of_the_networks(fitted_on, seeds, make_record, make_protocol):
    protocol = make_protocol(selection_metric=None, fitted_on=fitted_on, series_length=90)
    config = {"seed": 0, "model": {"fit_on": fitted_on}}
    quant = make_record(model="quant", accuracy=0.7, config=config, protocol=protocol, num_parameters=None)
    networks = seeds(0.8, 0.9)
    data = networks[0].data
    assert entries([*networks, quant]) == [(data, 0, networks[0].model, 2, 0.85), (data, 0, "quant", 1, 0.7)]


def test_what_selects_nothing_or_scales_otherwise_shares_the_row_of_what_selects(make_record, make_protocol):
    reference = {"selection_metric": None, "fitted_on": "train_and_validation", "scaling": "none"}
    runs = [
        make_record(
            model="quant",
            config={"seed": 0, "data": {"scaling": "none"}, "model": {"fit_on": "train_and_validation"}},
            protocol=make_protocol(**reference),
        ),
        make_record(model="closed_form", protocol=make_protocol(selection_metric=None)),
        make_record(model="krontime", protocol=make_protocol()),
    ]
    assert [entry[1] for entry in entries(runs)] == [0, 0, 0]
    assert [entry[1] for entry in entries(runs[:2])] == [0, 0]
    other = make_record(
        model="tcn", config={"seed": 0, "data": {"scaling": "none"}}, protocol=make_protocol(scaling="none")
    )
    assert sorted(entry[1] for entry in entries([*runs, other])) == [0, 0, 0, 1]  # of a network it is the protocol


def test_reference_classifiers_that_saw_more_and_less_are_not_averaged(make_record, make_protocol):
    runs = [
        make_record(
            model="quant",
            seed=seed,
            config={"seed": seed, "model": {"fit_on": fitted_on}},
            protocol=make_protocol(selection_metric=None, fitted_on=fitted_on),
        )
        for seed, fitted_on in enumerate(("train", "train_and_validation"))
    ]
    assert [entry[3] for entry in entries(runs)] == [1, 1]
    assert any("model.fit_on" in note for note in notes(runs))


def test_runs_of_several_commits_or_versions_are_noted(make_record):
    git = GitState(commit="0123456789" * 4, dirty=True)
    other = GitState(commit="abcdef0123" * 4, dirty=False)
    records = [make_record(seed=seed, git=git, versions={"torch": "2", "numpy": "1"}) for seed in (0, 1)]
    assert notes(records) == []
    records.append(make_record(seed=2, git=other, versions={"torch": "3", "numpy": "1"}))
    records.append(make_record(seed=3, status=Status.FAILED, git=None))  # which gives no number
    assert notes(records) == [
        "ACSF1, krontime: runs of several versions (commit: 0123456 with changes / abcdef0, torch: 2 / 3)."
    ]


def test_runs_of_one_job_under_two_protocols_are_noted(make_record, make_protocol):
    records = [make_record(), make_record(protocol=make_protocol(num_train=90, num_val=10))]
    text = "ACSF1, krontime: runs of seed 0 differ in their protocol (num_train: 80 / 90, num_val: 20 / 10)."
    assert text in notes(records)


UNRECORDED = Remarks(
    unrecorded=(
        Unrecorded("ACSF1/krontime/seed1-0123456789ab", is_failed=True),
        Unrecorded("ACSF1/krontime/seed2-0123456789ab"),
        Unrecorded("ACSF1/tcn/seed0-0123456789ab"),
        Unrecorded("a/b/tcn/seed-1-0123456789ab", max_train=50, is_failed=True),
    )
)


def test_jobs_without_a_record_stand_in_their_cells(make_record):
    result = of([make_record()], remarks=UNRECORDED)
    assert result.rows == (("a/b, at most 50 training series", 0), ("ACSF1", 0))
    assert [(e.variant, e.mean, e.count(Status.FAILED), e.num_missing) for e in result.entries] == [
        (("tcn",), None, 1, 0),
        (("krontime",), 0.87, 1, 1),
        (("tcn",), None, 0, 1),
    ]
    assert result.notes == ()
    assert result.data_sets == ["ACSF1"]


def test_of_which_variant_a_job_without_a_record_is_remains_open(make_record):
    result = of([make_record()], keys=["model.depth"], remarks=UNRECORDED)
    assert result.rows == (("ACSF1", 0),)
    assert [note.text for note in result.notes] == [
        "ACSF1, krontime: 2 jobs (1 failed) left no record.",
        "ACSF1, tcn: 1 job left no record.",
        "a/b, at most 50 training series, tcn: 1 job (1 failed) left no record.",
    ]
