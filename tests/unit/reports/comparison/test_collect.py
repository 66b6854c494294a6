"""Records on disk: found once each, checked against themselves and against what lies beside them, and published."""

import json
import shutil
from datetime import timedelta

import numpy as np
import pytest

from krontime.config.identity import config_hash
from krontime.errors import UserError
from krontime.reports.comparison.collect import collect, publish
from krontime.runs.predictions import Outcomes, Predictions, read_outcomes, write_predictions
from krontime.runs.record import Status


def outcomes(num_right: int, num: int = 100) -> Outcomes:
    labels = np.array(["oven"] * num, dtype=object)
    return Outcomes(np.arange(num), labels, np.where(np.arange(num) < num_right, "oven", "fridge").astype(object))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_each_record_is_found_once(make_record, tmp_path):
    for place, seed in (("b/x", 0), ("a", 1), ("a/deep/er", 2)):
        make_record(seed=seed).write(tmp_path / place / "record.json")
    (tmp_path / "a" / "other.json").write_text("{")
    runs, damaged = collect([tmp_path / "a", tmp_path, tmp_path / "b"])
    assert [run.record.seed for run in runs] == [2, 1, 0]
    assert [run.folder for run in runs] == [tmp_path / "a/deep/er", tmp_path / "a", tmp_path / "b/x"]
    assert damaged == []


TAMPERED = {
    "another config under the old hash": ({"config": {"seed": 0}}, "config_hash is "),
    "another seed": ({"seed": 5}, "seed is 5 but config.seed is 0"),
    "another model": ({"model": "tcn"}, "model is 'tcn' but config.model.name is 'krontime'"),
    "another data set": ({"data": "GunPoint"}, "data is 'GunPoint' but config.data.name is 'ACSF1'"),
    "an accuracy of no number of series": (
        {"metrics": {"val": {}, "test": {"accuracy": 0.875}}},
        "metrics.test.accuracy is 0.875, which no number of 100 test series gives",
    ),
    "a hash of nothing": ({"config_hash": "0" * 12}, "config_hash is '000000000000'"),
    "a score out of range": ({"metrics": {"val": {}, "test": {"accuracy": 87.0}}}, "test.accuracy is 87.0"),
    "no score": ({"metrics": {"val": {}, "test": {}}}, "needs metrics.test.accuracy"),
    "an unknown field": ({"comment": "trust me"}, "comment"),
    "another schema": ({"schema_version": 99}, "schema_version=99"),
    "another accuracy than the predictions give": (
        {"metrics": {"val": {}, "test": {"accuracy": 0.97}}},
        "metrics.test.accuracy is 0.97 but the predictions beside it give 0.87",
    ),
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_tampered_record_is_named_and_left_out(make_record, write_outcomes, tmp_path, kind):
    for name, seed in (("good", 1), ("bad", 0)):
        settings = {"seed": seed, "model": {"name": "krontime"}, "data": {"name": "ACSF1"}}
        make_record(seed=seed, accuracy=0.87, config=settings).write(tmp_path / name / "record.json")
        write_outcomes(outcomes(87), tmp_path / name)
    changes, problem = TAMPERED[kind]
    edit(tmp_path / "bad" / "record.json", **changes)
    runs, [damaged] = collect([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    assert damaged.path == tmp_path / "bad" / "record.json"
    assert damaged.place == "bad/record.json"
    assert any(problem in text for text in damaged.problems), damaged.problems
    assert not any(str(tmp_path) in text for text in damaged.problems)


def test_damaged_files_are_named_and_left_out(make_record, tmp_path):
    for number, name in enumerate(("good", "partial", "predictions")):
        make_record(seed=number).write(tmp_path / name / "record.json")
    partial = tmp_path / "partial" / "record.json"
    partial.write_text(partial.read_text()[:100])
    (tmp_path / "predictions" / "test_predictions.parquet").write_bytes(b"PAR1")
    runs, damaged = collect([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    assert [item.place for item in damaged] == ["partial/record.json", "predictions/record.json"]


def test_no_whole_record_and_no_folder_are_mistakes(make_record, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: expected a folder"):
        collect([tmp_path / "nowhere", tmp_path])
    with pytest.raises(UserError, match=r"no whole record\.json found"):
        collect([tmp_path])
    make_record().write(tmp_path / "a" / "record.json")
    edit(tmp_path / "a" / "record.json", seed=5)
    with pytest.raises(UserError) as caught:
        collect([tmp_path])
    assert any(str(tmp_path / "a" / "record.json") in problem for problem in caught.value.problems)


def test_publish_leaves_the_machine_out_and_keeps_the_identity(make_record, write_outcomes, tmp_path):
    settings = {
        "seed": 0,
        "paths": {"output": "outputs", "data": "/home/me/data", "cache": "/home/me/.cache"},
        "data": {"path": "/home/me/data/A.npz", "source": {"folder": "/home/me/.cache/ucr"}},
    }
    first = make_record(config=settings, accuracy=0.5)
    hour = timedelta(hours=1)
    again = make_record(
        config=settings, accuracy=0.6, started_at=first.started_at + hour, finished_at=first.finished_at + hour
    )
    for name, record, right in (("old", first, 50), ("new", again, 60)):
        record.write(tmp_path / "runs" / name / "record.json")
        write_outcomes(outcomes(right), tmp_path / "runs" / name)
    publish(collect([tmp_path / "runs"])[0], tmp_path / "published")
    [run], damaged = collect([tmp_path / "published"])
    assert damaged == []
    assert run.record == again.model_copy(update={"config": run.record.config})
    assert run.record.config_hash == config_hash(run.record.config)
    assert run.record.config["data"] == {"path": "<data>/A.npz", "source": {"folder": "<cache>/ucr"}}
    place = run.folder.relative_to(tmp_path / "published").as_posix()
    assert place == f"ACSF1/krontime/seed0-{again.config_hash}"
    assert "/home/me" not in (tmp_path / "published" / "records.jsonl").read_text()
    assert run.outcomes.correct.sum() == 60


def test_publish_leaves_the_given_runs_and_no_others(make_record, write_outcomes, tmp_path):
    for data in ("A", "B"):
        config = {"seed": 0, "data": {"name": data}}
        make_record(data=data, config=config, accuracy=0.5).write(tmp_path / "runs" / data / "record.json")
        write_outcomes(outcomes(50), tmp_path / "runs" / data)
    published = tmp_path / "published"

    def published_runs():
        return sorted((run.record.data, run.outcomes.correct.sum()) for run in collect([published])[0])

    publish(collect([tmp_path / "runs"])[0], published)
    assert published_runs() == [("A", 50), ("B", 50)]
    publish(collect([tmp_path / "runs" / "A"])[0], published)
    assert published_runs() == [("A", 50)]
    publish(collect([published, tmp_path / "runs" / "B"])[0], published)  # what lies there may be among the runs
    assert published_runs() == [("A", 50), ("B", 50)]
    publish([run for run in collect([published])[0] if run.record.data == "B"], published)
    assert published_runs() == [("B", 50)]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_publish_keeps_what_is_not_the_same_job_on_the_same_data(make_record, make_protocol, tmp_path):
    for number, sha in enumerate(("ab", "cd")):
        make_record(protocol=make_protocol(data_sha256=sha * 32)).write(tmp_path / "runs" / f"{number}" / "record.json")
    make_record(status=Status.FAILED, protocol=None).write(tmp_path / "runs" / "failed" / "record.json")
    for model in ("krontime", "tcn"):  # whose configs do not name it
        make_record(model=model, seed=1).write(tmp_path / "runs" / model / "record.json")
    publish(collect([tmp_path / "runs"])[0], tmp_path / "published")
    config_hash_0, config_hash_1 = (make_record(seed=seed).config_hash for seed in (0, 1))
    places = [run.folder.relative_to(tmp_path / "published").as_posix() for run in collect([tmp_path / "published"])[0]]
    assert places == [
        f"ACSF1/krontime/seed0-{config_hash_0}-abababab",
        f"ACSF1/krontime/seed0-{config_hash_0}-cdcdcdcd",
        f"ACSF1/krontime/seed1-{config_hash_1}",
        f"ACSF1/tcn/seed1-{config_hash_1}",
    ]


def test_publish_replaces_no_run_folders(make_record, tmp_path):
    folder = tmp_path / "study" / "records"
    make_record(seed=0).write(folder / "run" / "record.json")
    (folder / "run" / "config.yaml").write_text("")
    runs, _ = collect([folder])
    with pytest.raises(UserError, match=r"records: holds run/config\.yaml, which is not of published records"):
        publish(runs, folder)
    assert (folder / "run" / "config.yaml").is_file()


def test_publish_follows_a_link(make_record, tmp_path):
    make_record(seed=0).write(tmp_path / "runs" / "record.json")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "published").symlink_to("elsewhere")
    publish(collect([tmp_path / "runs"])[0], tmp_path / "published")
    assert (tmp_path / "published").is_symlink()
    assert len((tmp_path / "elsewhere" / "records.jsonl").read_text().splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "elsewhere", "published"}


def test_publishing_that_breaks_off_loses_nothing(make_record, tmp_path, monkeypatch):
    published = tmp_path / "all" / "published"
    make_record(seed=0).write(tmp_path / "runs" / "record.json")
    runs, _ = collect([tmp_path / "runs"])
    publish(runs, published)
    with monkeypatch.context() as patch:
        patch.setattr("krontime.reports.comparison.collect.newest", lambda job: pytest.fail("full disk", pytrace=False))
        with pytest.raises(pytest.fail.Exception):
            publish(runs, published)
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["published"]
    shutil.copytree(published, published.with_name(f".published.{'0' * 32}"))  # a process was killed
    [run], damaged = collect([tmp_path / "all"])
    assert run.folder.is_relative_to(published)
    assert damaged == []


def test_outcomes_of_a_run_folder_are_those_of_its_predictions(tmp_path):
    probabilities = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]], dtype=np.float32)
    written = Predictions(np.array([9, 3, 5, 7]), ["NA", "", None, ""], probabilities, ("", "NA"))
    write_predictions(written, tmp_path / "test_predictions.parquet")
    outcomes = read_outcomes(tmp_path)
    assert outcomes.index.tolist() == [3, 7, 9]
    assert outcomes.labels.tolist() == ["", "", "NA"]
    assert outcomes.correct.tolist() == [True, False, True]
    assert outcomes.positive == "NA"
    assert outcomes.probability.tolist() == probabilities[[1, 3, 0], 1].tolist()
    three = Predictions(np.array([1]), ["b"], np.array([[0.1, 0.5, 0.4]]), ("a", "b", "c"))
    write_predictions(three, tmp_path / "test_predictions.parquet")
    assert read_outcomes(tmp_path).probability is None
    assert read_outcomes(tmp_path / "nothing") is None


def test_a_damaged_record_of_an_archive_is_named_by_its_line(make_record, tmp_path):
    for seed in (0, 1, 2):
        make_record(seed=seed).write(tmp_path / "runs" / str(seed) / "record.json")
    publish(collect([tmp_path / "runs"])[0], tmp_path / "all" / "records")
    path = tmp_path / "all" / "records" / "records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace('"seed": 1', '"seed": 7', 1), lines[2]]))
    runs, [damaged] = collect([tmp_path / "all"])
    assert [run.record.seed for run in runs] == [0, 2]
    assert (damaged.path, damaged.place) == (path, "records/records.jsonl, line 2")
    assert damaged.problems[0].startswith("seed is 7 but config.seed is 1")
