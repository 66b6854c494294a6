"""What the tables of scores look like."""

import csv
import re
from pathlib import Path

import pytest

from krontime.reports.comparison.collect import Damaged, Stored
from krontime.reports.comparison.compare import compare
from krontime.reports.comparison.tables import write_scores
from krontime.reports.published import Published
from krontime.runs.record import Device, Metrics, Status


@pytest.fixture(scope="session")
def seeds(make_record):
    """Completed records of seeds 0, 1, ... with the given accuracies."""

    def make(*accuracies: float, **changes):
        return [make_record(seed=seed, accuracy=accuracy, **changes) for seed, accuracy in enumerate(accuracies)]

    return make


@pytest.fixture
def table(tmp_path):
    """The Markdown of some records' tables; LaTeX and CSV lie beside it in the folder of the test."""

    def written(records, published=(), **options):
        write_scores(compare([Stored(record, Path()) for record in records], **options), tmp_path, published)
        return (tmp_path / "scores.md").read_text()

    return written


def rows(text: str) -> list[list[str]]:
    """Cells of the first table's rows below the head; every row has as many cells as the head."""
    lines = [line for line in text.partition("**Cost")[0].splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert {len(cells) for cells in split} == {len(split[0])}
    return split[2:]


def test_golden_table(seeds, make_record, table):
    records = [
        *seeds(0.8, 0.9, 0.85),
        *seeds(0.5, model="tcn", num_parameters=1000, train_time_s=3.21),
        make_record(model="tcn", seed=1, status=Status.FAILED),
        make_record(model="tcn", seed=2, status=Status.OUT_OF_MEMORY, protocol=None),
        make_record(data="BonnEEG", accuracy=0.95),
    ]
    assert table(records) == (
        "**Test score**\n\n"
        "| data set | score | krontime | tcn |\n"
        "|---|---|---:|---:|\n"
        "| ACSF1 | accuracy | **0.850 ± 0.050** (n=3) | <u>0.500</u> (n=1), 1 failed, 1 out of memory |\n"
        "| BonnEEG | accuracy | 0.950 (n=1) | missing |\n"
        "| mean over data sets | accuracy | 0.900 | - |\n\n"
        "**Cost: training time, peak memory, parameters**\n\n"
        "| data set | most epochs | krontime | tcn |\n"
        "|---|---|---:|---:|\n"
        "| ACSF1 | 5 | 125 s, 1.50 GiB, 123,456 | 3.2 s, 1.50 GiB, 1,000 |\n"
        "| BonnEEG | 5 | 125 s, 1.50 GiB, 123,456 | - |\n\n"
        "Mean ± sample standard deviation over n seeds; higher is better, best in bold, second best underlined. Costs "
        "are means over the completed runs. Peak memory on a CPU is that of the process, libraries included. Computed "
        "on 1 x A Processor, 2 threads; torch 2.13.0; commit 0123456 with changes.\n"
    )


def test_latex_and_csv_hold_the_same_numbers(seeds, table, tmp_path):
    table([*seeds(0.8, 0.9), *seeds(0.5, 0.7, model="tcn")])
    latex = (tmp_path / "scores.tex").read_text()
    assert "ACSF1 & accuracy & \\textbf{0.850 $\\pm$ 0.071} (n=2) & \\underline{0.600 $\\pm$ 0.141} (n=2) \\\\" in latex
    assert "ACSF1 & 5 & 125 s, 1.50 GiB, 123,456 & 125 s, 1.50 GiB, 123,456 \\\\" in latex
    with (tmp_path / "scores.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["model"], second["model"]) == ("krontime", "tcn")
    assert float(second["mean"]) == pytest.approx(0.6)
    assert float(second["standard_deviation"]) == pytest.approx(0.1414, abs=1e-4)
    assert (first["n"], first["seeds"], first["completed"], first["failed"]) == ("2", "0 1", "2", "0")


@pytest.mark.parametrize(("metric", "marks"), [("accuracy", ["**", "<u>", ""]), ("nll", ["", "<u>", "**"])])
def test_the_best_and_the_second_best_are_marked(make_record, table, metric, marks):
    records = [
        make_record(model=model, metrics=Metrics(test={"accuracy": value, "nll": value}))
        for model, value in (("a", 0.9), ("b", 0.8), ("c", 0.7))
    ]
    text = table(records, metric=metric)
    for cell, mark in zip(rows(text)[0][2:], marks, strict=True):
        assert re.match(r"\*\*|<u>|", cell)[0] == mark
    assert ("lower is better" in text) == (metric == "nll")


def test_the_mean_over_data_sets_is_that_of_one_score(seeds, make_protocol, table):
    balanced = make_protocol(train_class_counts={"oven": 9, "fridge": 1})
    both = [*seeds(0.7, 0.9), *seeds(0.6, data="B"), *seeds(0.5, 0.5, model="tcn"), *seeds(0.4, data="B", model="tcn")]
    assert rows(table(both))[-1] == ["mean over data sets", "accuracy", "0.700", "0.450"]
    one = [record for record in both if record.model == "tcn"]
    assert rows(table(one, keys=["model.depth"]))[0][-1] == "0.450"
    assert rows(table([*both, *seeds(0.5, data="C", protocol=balanced)]))[-1][0] == "C"


def test_the_time_to_classify_a_series_is_shown_where_a_record_has_it(make_record, table):
    text = table([make_record(inference_ms_per_series=0.244), make_record(seed=1), make_record(model="tcn")])
    assert "**Cost: training time, time to classify a series, peak memory, parameters**" in text
    assert "\n| ACSF1 | 5 | 125 s, 0.24 ms, 1.50 GiB, 123,456 | 125 s, -, 1.50 GiB, 123,456 |\n" in text


def test_the_winning_value_of_each_option_stands_with_its_cost(make_record, table):
    def variant(depth: int, attention: str, accuracy: float, data: str = "ACSF1", **changes):
        config = {"model": {"depth": depth, "attention": attention}}
        return make_record(data=data, accuracy=accuracy, config=config, **changes)

    records = [
        variant(1, "kronecker", 0.5),
        variant(2, "kronecker", 0.7, train_time_s=40.0),
        variant(3, "kronecker", 0.6),
        variant(2, "full", 0.8),
        *(variant(depth, "kronecker", 0.9, data="BonnEEG") for depth in (1, 2, 3)),
        variant(3, "full", 0.9, status=Status.FAILED, metrics=Metrics()),
    ]
    text = table(records, keys=["model.depth", "model.attention"])
    cost = "(125 s, 1.50 GiB, 123,456)"
    assert text.partition("**Which value")[2].splitlines()[2:-2] == [
        "| option | values | all else | ACSF1 | BonnEEG |",
        "|---|---|---|---:|---:|",
        f"| depth | 1, 2, 3 | attention kronecker | **2** 0.700 (40 s, 1.50 GiB, 123,456)<br><u>3</u> 0.600 {cost} "
        "| no difference |",
        f"| attention | full, kronecker | depth 2 | **full** 0.800 {cost}"
        "<br><u>kronecker</u> 0.700 (40 s, 1.50 GiB, 123,456) | - |",
    ]


def test_one_option_alone_needs_no_table_of_winners(make_record, table):
    records = [make_record(accuracy=depth / 5, config={"model": {"depth": depth}}) for depth in (1, 2)]
    assert "Which value" not in table(records, keys=["model.depth"])


def test_scores_that_look_the_same_share_a_mark(make_record, table):
    records = [make_record(model=m, accuracy=a) for m, a in (("a", 0.9001), ("b", 0.9002), ("c", 0.5), ("d", 0.4))]
    assert rows(table(records))[0][2:] == ["**0.900** (n=1)", "**0.900** (n=1)", "<u>0.500</u> (n=1)", "0.400 (n=1)"]


def test_another_protocol_has_a_row_of_its_own(seeds, make_record, make_protocol, table):
    text = table([*seeds(0.8, 0.8), make_record(model="tcn", accuracy=0.2, protocol=make_protocol(scaling="none"))])
    assert rows(text) == [
        ["ACSF1 <sup>1</sup>", "accuracy", "0.800 ± 0.000 (n=2)", "missing"],
        ["ACSF1 <sup>1</sup>", "accuracy", "-", "0.200 (n=1)"],
    ]
    assert "<sup>1</sup> ACSF1: protocols differ (scaling: per_series / none); kept apart" in text


def test_another_config_has_a_line_of_its_own(make_record, table):
    records = [
        make_record(seed=seed, accuracy=accuracy, config={"seed": seed, "model": {"depth": depth}})
        for seed, depth, accuracy in ((0, 2, 0.8), (1, 2, 0.9), (1, 3, 0.1), (0, 3, 0.1))
    ]
    text = table(records)
    assert rows(text)[0][2] == "**0.850 ± 0.071** (n=2)<br><u>0.100 ± 0.000</u> (n=2) <sup>1</sup>"
    assert "<sup>1</sup> ACSF1, krontime: configs differ (model.depth: 2 / 3); one line each." in text


def test_what_is_damaged_stands_in_a_note(make_record, table):
    damaged = [Damaged(Path("/home/me/x/record.json"), "x/record.json", ("config_hash is wrong", "seed is wrong"))]
    text = table([make_record()], damaged=damaged)
    assert "<sup>1</sup> Left out, damaged: x/record.json: config_hash is wrong; seed is wrong." in text
    assert "/home/me" not in text


def test_runs_out_of_time_are_counted(make_record, table):
    text = table([make_record(config={"seed": 0, "trainer": {"max_time": "00:00:02:00"}})])
    assert rows(text)[0][2] == "0.870 (n=1), 1 out of time"
    assert "trained for all of the time that trainer.max_time allowed" in text


def test_only_failures_and_several_devices(make_record, table):
    gpu = Device(kind="cuda", name="A GPU", num_threads=2, platform="Linux 6 x86_64")
    records = [make_record(status=Status.FAILED, protocol=None), make_record(model="tcn", device=gpu)]
    text = table(records)
    assert rows(text)[0][2:] == ["1 failed", "0.870 (n=1)"]
    assert "1 x A GPU, 2 threads; 1 x A Processor, 2 threads (times are not comparable)" in text
    assert rows(table(records[:1])) == [["ACSF1", "accuracy", "1 failed"]]


def test_a_score_that_is_not_defined_is_counted(make_record, table):
    records = [make_record(seed=0, balanced_accuracy=0.6), make_record(seed=1, balanced_accuracy=None)]
    assert rows(table(records, metric="balanced_accuracy"))[0][2] == "0.600 (n=1), accuracy 0.870, 1 without this score"


def test_variants_are_rows_and_data_sets_columns(make_record, table, tmp_path):
    records = [
        make_record(data=data, accuracy=accuracy, config={"seed": 0, "data": data, "model": {"depth": depth}})
        for data, depth, accuracy in (("A", 2, 0.8), ("A", 10, 0.9), ("B", 10, 0.7))
    ]
    text = table(records, keys=["model.depth", "seed"])
    assert (
        "| depth | seed | A<br>(accuracy) | B<br>(accuracy) | mean over data sets |\n|---|---|---:|---:|---:|" in text
    )
    assert rows(text) == [
        ["2", "0", "<u>0.800</u> (n=1)", "missing", "-"],
        ["10", "0", "**0.900** (n=1)", "0.700 (n=1)", "0.800"],
    ]
    assert (
        (tmp_path / "scores.csv").read_text().startswith("origin,data,protocol,config.model.depth,config.seed,metric,")
    )


def test_scores_from_elsewhere_stand_apart(make_record, make_protocol, table, tmp_path):
    uneven = make_protocol(train_class_counts={"N": 80, "V": 4})
    records = [
        make_record(accuracy=0.5),
        make_record(data="MITBIH_ECG", protocol=uneven, balanced_accuracy=0.4),
        make_record(data="MITBIH_ECG", seed=1, protocol=uneven.model_copy(update={"scaling": "none"})),
    ]
    published = [
        Published("ACSF1", "Rocket", "accuracy", "0.99", "a paper", "its own"),
        Published("MITBIH_ECG", "Rocket", "accuracy", "0.98", "a paper", "its own"),
        Published("MITBIH_ECG", "Forest", "balanced_accuracy", "0.97", "a page", "unknown"),
        Published("Elsewhere", "Forest", "accuracy", "0.96", "a page", "unknown"),
    ]
    text = table(records, published)
    assert "| data set | score | krontime | ‖ | Forest | Rocket |" in text
    assert [row[3:] for row in rows(text)] == [
        ["‖", "-", "0.99 <sup>2</sup>"],
        ["‖", "0.97 <sup>3</sup>", "-"],
        ["‖", "-", "-"],
    ]
    assert "**" not in "".join(cell for row in rows(text) for cell in row)  # no mark, though better
    assert "<sup>2</sup> From elsewhere: a paper. Protocol: its own." in text
    assert "{llr|rr}" in (tmp_path / "scores.tex").read_text()
    with (tmp_path / "scores.csv").open() as file:
        result = [
            (row["origin"], row["data"], row["model"], row["mean"], row["source"]) for row in csv.DictReader(file)
        ]
    assert result[-1] == ("elsewhere", "MITBIH_ECG", "Forest", "0.97", "a page")
    assert len([row for row in result if row[0] == "elsewhere"]) == 3


def test_names_cannot_break_the_table(make_record, table):
    text = table([make_record(data="a|b\nc <x>", model="m|n")])
    assert rows(text)[0][0] == "a\\|b c &lt;x>"
    assert "| m\\|n |" in text
