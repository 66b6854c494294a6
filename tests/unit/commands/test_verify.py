"""The command `verify`: a published run trained again here, and records that are not met."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from krontime import cli
from krontime.commands.verify import in_steps
from krontime.errors import UserError
from krontime.reports.comparison.collect import Stored
from krontime.reports.verification import here, verified
from krontime.runs.record import Metrics, Status

DUMMY = ("model=aeon", "model.classifier=aeon.classification.DummyClassifier", "logger=[]")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder with `data`, and `results` that were made from runs on it and published."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    np.savez(
        folder / "data/Own.npz", X=rng.standard_normal((40, 1, 20)), y=np.arange(40) % 2, split=np.arange(40) >= 30
    )
    place = ("data=archive", "data.name=Own", f"paths.data={folder / 'data'}", f"paths.output={folder / 'runs'}")
    cli.main(["train", *DUMMY, *place])
    cli.main(["tables", f"records={folder / 'runs'}", f"output={folder / 'results'}", "publish=true"])
    shutil.rmtree(folder / "runs")
    return folder


def test_a_run_of_a_table_is_met_to_the_last_bit(published, tmp_path, capsys):
    arguments = [f"table={published / 'results'}", f"paths.data={published / 'data'}", f"output={tmp_path}"]
    cli.main(["verify", *arguments, "seed=0"])
    assert ": met, to the last bit" in capsys.readouterr().out
    cli.main(["verify", *arguments, "seed=0"])  # what was trained before is no answer
    said = capsys.readouterr().out
    assert ": met, to the last bit" in said
    assert "already done" not in said
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", *arguments, "run=Own/other/seed0-000000000000"])
    assert ended.value.code == 2
    assert "expected a completed run of the table, such as Own/DummyClassifier/seed0-" in capsys.readouterr().err


def test_a_run_of_the_table_stays_where_it_is(published, tmp_path, capsys):
    place = ("data=archive", "data.name=Own", f"paths.data={published / 'data'}", f"paths.output={tmp_path / 'runs'}")
    cli.main(["train", *DUMMY, *place])
    (record,) = (tmp_path / "runs").rglob("record.json")
    before = record.read_text()
    for output in (tmp_path / "runs", record.parent, record.parent / "again"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["verify", f"table={tmp_path / 'runs'}", f"paths.data={published / 'data'}", f"output={output}"])
        assert ended.value.code == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"output='{output}': expected another folder" in said
    assert record.read_text() == before
    assert [path.name for path in (tmp_path / "runs").rglob("record*.json")] == ["record.json"]


@pytest.mark.parametrize("seed", ["-1", "true"])
def test_a_seed_that_is_none_is_refused(published, capsys, seed):
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", f"table={published / 'results'}", f"seed={seed}"])
    assert ended.value.code == 2
    assert "expected a whole number of at least 0, or null" in capsys.readouterr().err


def test_a_record_that_is_not_met_ends_with_1(published, tmp_path, capsys):
    results = shutil.copytree(published / "results", tmp_path / "results")
    archive = next(results.rglob("records.jsonl"))
    line = json.loads(archive.read_text())
    line["record"]["metrics"]["test"]["macro_f1"] = 0.9
    archive.write_text(json.dumps(line) + "\n")
    (archive.parent / "predictions.parquet").unlink()
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", f"table={results}", f"paths.data={published / 'data'}", f"output={tmp_path / 'again'}"])
    assert ended.value.code == 1
    assert ": not met: the processor, its threads and PyTorch are the same" in capsys.readouterr().out


def test_a_run_of_another_version_is_named_as_such(published, tmp_path, capsys, monkeypatch):
    def refused(config, *, is_multirun):
        raise UserError("loss.weights='old': expected 'new'")

    monkeypatch.setattr("krontime.commands.verify.check_train", refused)
    with pytest.raises(SystemExit):
        cli.main(["verify", f"table={published / 'results'}", f"output={tmp_path}"])
    err = capsys.readouterr().err
    assert "it was run with another version of krontime" in err
    assert "loss.weights='old': expected 'new'" in err


def test_folders_of_this_machine_take_the_place_of_those_that_were_left_out():
    config = {"data": {"path": "<data>/A.npz", "name": "<data>x"}, "paths": {"data": "<data>"}, "lists": ["<cache>"]}
    placed = here(config, {"data": "/d", "cache": "/c", "output": "/o"})
    assert placed["data"] == {"path": "/d/A.npz", "name": "<data>x"}
    assert (placed["lists"], placed["logger"]) == (["/c"], {})


def test_elsewhere_the_spread_of_the_seeds_is_the_limit(make_record):
    runs = [Stored(make_record(seed=seed, accuracy=accuracy), Path("x")) for seed, accuracy in enumerate((0.8, 0.9))]
    old = runs[0].record
    device = old.device.model_copy(update={"name": "Another"})

    def again(accuracy: float, **changes):
        return make_record(accuracy=accuracy, **{"device": device, **changes})

    assert verified(old, again(0.8), runs).verdict == "met, to the last bit"
    assert verified(old, again(0.9), runs).met
    assert verified(old, again(0.9), runs).verdict.startswith("met within the spread of the seeds: accuracy 0.9000")
    assert not verified(old, again(0.91), runs).met
    assert verified(old, again(0.82), runs[:1]).met  # two of a hundred test series
    assert not verified(old, again(0.83), runs[:1]).met
    assert not verified(old, again(0.9, device=old.device), runs).met
    other = old.protocol.model_copy(update={"data_sha256": "cd" * 32})
    assert verified(old, again(0.8, protocol=other), runs).verdict == "not met: the data has changed since"
    failed = make_record(status=Status.FAILED, metrics=Metrics())
    assert "ended as failed" in verified(old, failed, runs).verdict


@pytest.mark.parametrize(
    ("limited_by", "max_steps", "expected"),
    [("seconds", 37, {"max_epochs": 5, "max_steps": 37}), ("epochs", 9, None), (None, None, None)],
)
def test_a_limit_on_time_is_the_number_of_steps_that_it_was(limited_by, max_steps, expected, make_record):
    config = {"seed": 0, "trainer": {"max_epochs": 5, "max_time": "00:00:01:00"}}
    record = make_record(config=config, limited_by=limited_by, max_steps=max_steps, num_steps=max_steps)
    assert in_steps(config, record)["trainer"] == (expected or config["trainer"])
    assert "max_time" in config["trainer"]
