"""A table averages what differs in the seed alone, shows failures, and keeps everything else apart."""

import json
import re
import runpy
import statistics
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krontime.errors import UserError
from krontime.results.record import Device, Metrics, Status, config_hash
from krontime.results.tables import BEGIN, END, collect, first_results_table, main, publish, write_between_markers

ROOT = Path(__file__).parents[2]


def rows(table: str) -> list[list[str]]:
    """Cells of the table's rows below the head; every row has as many cells as the head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert {len(cells) for cells in split} == {len(split[0])}
    return split[2:]


@pytest.fixture(scope="session")
def record(make_record):
    return make_record


@pytest.fixture(scope="session")
def protocol(make_protocol):
    return make_protocol


@pytest.fixture(scope="session")
def seeds(record):
    """Completed records of seeds 0, 1, ... with the given accuracies."""

    def make(*accuracies: float, **changes):
        return [record(seed=seed, accuracy=accuracy, **changes) for seed, accuracy in enumerate(accuracies)]

    return make


def test_a_reference_classifier_shares_the_row_of_the_networks_unless_it_saw_more(seeds, record, protocol):
    saw_train = protocol(selection_metric=None, fitted_on="train", series_length=90)
    saw_more = protocol(selection_metric=None, fitted_on="train_and_validation")
    quant = record(model="quant", accuracy=0.7, protocol=saw_train, num_parameters=None)
    found = rows(first_results_table([*seeds(0.8, 0.9), quant]))
    assert len(found) == 1
    assert found[0][3].startswith("0.700 (n=1)<br>125 s <sup>")  # no epochs, no parameters
    table = first_results_table([*seeds(0.8, 0.9), record(model="quant", protocol=saw_more)])
    assert len(rows(table)) == 2
    assert "fitted_on" in table


def test_golden_table(seeds, record):
    records = [
        *seeds(0.8, 0.9, 0.85),
        *seeds(0.5, model="tcn", num_parameters=1000, train_time_s=3.21),
        record(model="tcn", seed=1, status=Status.FAILED),
        record(model="tcn", seed=2, status=Status.OUT_OF_MEMORY, protocol=None),
        record(data="BonnEEG", accuracy=0.95),
    ]
    assert first_results_table(records) == (
        "| data set | test score | krontime | tcn |\n"
        "|---|---|---|---|\n"
        "| ACSF1 | accuracy | 0.850 ± 0.050 (n=3)<br>at most 5 epochs, 125 s, 123,456 parameters "
        "| 0.500 (n=1), 1 failed, 1 out of memory<br>at most 5 epochs, 3.2 s, 1,000 parameters |\n"
        "| BonnEEG | accuracy | 0.950 (n=1)<br>at most 5 epochs, 125 s, 123,456 parameters | - |\n"
        "\n"
        "Test score, mean ± standard deviation over n seeds; below it training time and parameters. "
        "Computed on 1 x A Processor, 2 threads.\n"
    )


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.randoms())
def test_mean_and_deviation_over_seeds_whatever_the_order(seeds, accuracies, random):
    records = seeds(*accuracies)
    random.shuffle(records)
    cell = rows(first_results_table(records))[0][2]
    mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
    assert cell.startswith(f"{mean:.3f} ± {deviation:.3f} (n={len(accuracies)})")


def test_imbalanced_data_is_scored_by_balanced_accuracy(protocol, record):
    uneven = protocol(train_class_counts={"N": 80, "V": 40})
    even = protocol(train_class_counts={"N": 80, "V": 41})
    [cells] = rows(first_results_table([record(protocol=uneven, accuracy=0.9, balanced_accuracy=0.4)]))
    assert cells[1:3] == ["balanced accuracy", "0.400 (n=1)<br>at most 5 epochs, 125 s, 123,456 parameters"]
    [cells] = rows(first_results_table([record(protocol=even, accuracy=0.9, balanced_accuracy=0.4)]))
    assert cells[1] == "accuracy"
    assert cells[2].startswith("0.900")


def test_a_score_that_is_not_defined_is_not_averaged(protocol, record):
    uneven = protocol(train_class_counts={"N": 80, "V": 4})
    records = [
        record(protocol=uneven, seed=0, balanced_accuracy=0.6),
        record(protocol=uneven, seed=1, balanced_accuracy=None),
    ]
    assert rows(first_results_table(records))[0][2].startswith("0.600 (n=1), 1 without this score")


def test_data_without_a_test_split_has_no_score(protocol, record):
    validated = record(protocol=protocol(num_test=0), metrics=Metrics(val={"accuracy": 0.9}))
    assert rows(first_results_table([validated]))[0][2].startswith("1 without this score<br>at most 5 epochs, 125 s")


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
def test_different_protocols_are_flagged_and_never_averaged(seeds, protocol, record, change):
    records = [*seeds(0.8, 0.8), record(model="tcn", seed=0, accuracy=0.2, protocol=protocol(**change))]
    table = first_results_table(records)
    first, second = rows(table)
    assert first[0] == second[0] == "ACSF1 <sup>1</sup>"
    assert first[2].startswith("0.800 ± 0.000 (n=2)")
    assert (first[3], second[2]) == ("-", "-")
    assert second[3].startswith("0.200 (n=1)")
    assert f"ACSF1: protocols differ ({next(iter(change))}" in table


def test_a_split_that_follows_the_seed_is_one_protocol(protocol, record):
    records = [
        record(seed=seed, model=model, protocol=protocol(split_seed=seed, num_train=80 - seed, num_val=20 + seed))
        for seed in range(3)
        for model in ("krontime", "tcn")
    ]
    [cells] = rows(first_results_table(records))
    assert [cell[:21] for cell in cells[2:]] == ["0.870 ± 0.000 (n=3)<b"] * 2


def test_one_split_seed_with_two_sizes_is_flagged(protocol, record):
    records = [record(), record(model="tcn", protocol=protocol(num_train=90, num_val=10))]
    table = first_results_table(records)
    assert len(rows(table)) == 2
    assert "protocols differ (num_train, num_val)" in table


def test_different_configs_of_one_model_get_lines_of_their_own(record):
    def config(seed: int, depth: int) -> dict:
        return {"seed": seed, "data": {"split_seed": seed}, "model": {"depth": depth}}

    records = [
        record(seed=0, accuracy=0.8, config=config(0, 2)),
        record(seed=1, accuracy=0.9, config=config(1, 2)),
        record(seed=2, accuracy=0.1, config=config(2, 3)),
    ]
    table = first_results_table(records)
    cell = rows(table)[0][2]
    assert re.findall(r"\d\.\d{3} (?:± \d\.\d{3} )?\(n=\d\)", cell) == ["0.850 ± 0.071 (n=2)", "0.100 (n=1)"]
    assert cell.endswith("<sup>1</sup>")
    assert "<sup>1</sup> ACSF1, krontime: configs differ (model.depth)" in table


def test_a_missing_seed_is_flagged(seeds):
    table = first_results_table([*seeds(0.8, 0.9, 0.7), *seeds(0.5, 0.6, model="tcn")])
    assert "ACSF1, tcn: no run with seed 2." in table
    assert "ACSF1, krontime:" not in table


def test_a_job_run_again_counts_once_by_its_newest_completed_run(make_record):
    old = make_record(accuracy=0.1)
    later = {"started_at": old.started_at + timedelta(days=1), "finished_at": old.started_at + timedelta(days=2)}
    failed = make_record(status=Status.FAILED, **later)
    table = first_results_table([old, failed])
    assert rows(table)[0][2].startswith("0.100 (n=1)<br>")
    assert "failed" not in table
    table = first_results_table([make_record(accuracy=0.2, **later), old])
    assert rows(table)[0][2].startswith("0.200 (n=1)<br>")
    assert "runs of seed 0 do not repeat" in table


def test_only_failures_and_several_devices(record):
    gpu = Device(kind="cuda", name="A GPU", num_threads=2, platform="Linux 6 x86_64")
    records = [record(status=Status.FAILED, protocol=None), record(model="tcn", device=gpu)]
    table = first_results_table(records)
    assert rows(table)[0][2] == "1 failed"
    assert "1 x A GPU, 2 threads; 1 x A Processor, 2 threads; times are not comparable" in table
    assert rows(first_results_table(records[:1])) == [["ACSF1", "accuracy", "1 failed"]]


def test_names_cannot_break_the_table(record):
    table = first_results_table([record(data="a|b\nc <x>", model="m|n")])
    assert rows(table)[0][0] == "a\\|b c &lt;x>"
    assert "| m\\|n |" in table


def test_no_records_is_a_user_error():
    with pytest.raises(UserError, match=r"no record\.json"):
        first_results_table([])


def test_collect_finds_each_record_once(record, tmp_path):
    for place, seed in (("b/x", 0), ("a", 1), ("a/deep/er", 2)):
        record(seed=seed).write(tmp_path / place / "record.json")
    (tmp_path / "a" / "other.json").write_text("{")
    found = collect([tmp_path / "a", tmp_path, tmp_path / "b"])
    assert [one.seed for one in found] == [2, 1, 0]
    assert collect([tmp_path / "b"]) == [record(seed=0)]


def test_collect_names_every_damaged_record_and_missing_root(record, tmp_path):
    for name in ("good", "edited", "partial"):
        record().write(tmp_path / name / "record.json")
    edited = tmp_path / "edited" / "record.json"
    edited.write_text(json.dumps(json.loads(edited.read_text()) | {"config": {"seed": 0}}))
    partial = tmp_path / "partial" / "record.json"
    partial.write_text(partial.read_text()[:100])
    with pytest.raises(UserError) as caught:
        collect([tmp_path, tmp_path / "nowhere"])
    text = str(caught.value)
    assert str(edited) in text
    assert str(partial) in text
    assert "nowhere" in text
    assert str(tmp_path / "good") not in text


def test_publish_leaves_the_machine_out_and_keeps_the_identity(record, tmp_path):
    config = {
        "seed": 0,
        "paths": {"output": "outputs", "data": "/home/me/data", "cache": "/home/me/.cache"},
        "data": {"path": "/home/me/data/A.npz", "source": {"folder": "/home/me/.cache/ucr"}},
    }
    first = record(config=config, accuracy=0.5)
    hour = timedelta(hours=1)
    again = record(
        config=config, accuracy=0.6, started_at=first.started_at + hour, finished_at=first.finished_at + hour
    )
    publish([again, first], tmp_path)
    [published] = collect([tmp_path])
    assert published == again.model_copy(update={"config": published.config})
    assert published.config_hash == config_hash(published.config)
    assert published.config["data"] == {"path": "<data>/A.npz", "source": {"folder": "<cache>/ucr"}}
    [path] = tmp_path.rglob("record.json")
    assert path.parent.relative_to(tmp_path).as_posix() == f"ACSF1/krontime/seed0-{again.config_hash}"
    assert "/home/me" not in path.read_text()


def test_the_committed_table_is_that_of_the_committed_records():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition(BEGIN)[2].partition(END)[0]
    assert table.strip() == first_results_table(collect([ROOT / "docs" / "results" / "first"])).strip()


def test_the_table_goes_between_the_markers_and_twice_is_once(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_bytes(f"# Größe\r\n{BEGIN}\nold\n{END}\r\ntail".encode())
    write_between_markers(readme, "| t |\n")
    once = readme.read_bytes()
    assert once == f"# Größe\r\n{BEGIN}\n\n| t |\n\n{END}\r\ntail".encode()
    write_between_markers(readme, "| t |\n")
    assert readme.read_bytes() == once


@pytest.mark.parametrize(
    "text", ["", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}", f"{BEGIN} {BEGIN} {END}"]
)
def test_wrong_markers_leave_the_file_alone(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(UserError, match=r"README\.md: expected one"):
        write_between_markers(readme, "t")
    assert readme.read_text() == text
    with pytest.raises(UserError, match=r"none\.md"):
        write_between_markers(tmp_path / "none.md", "t")


def test_command_line(record, tmp_path, capsys, monkeypatch):
    record(metrics=Metrics(test={"accuracy": 0.5})).write(tmp_path / "runs" / "one" / "record.json")
    assert main([str(tmp_path / "runs")]) == 0
    table = capsys.readouterr().out
    assert "0.500 (n=1)" in table
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    assert main([str(tmp_path / "runs"), "--readme", str(readme)]) == 0
    assert readme.read_text() == f"{BEGIN}\n\n{table.strip()}\n\n{END}\n"
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err

    monkeypatch.setattr(sys, "argv", ["tables", str(tmp_path / "runs")])
    monkeypatch.delitem(sys.modules, "krontime.results.tables")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("krontime.results.tables", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == table
