"""The record survives a round trip and refuses to be read when something in it is wrong."""

import json
import math
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from krontime.config.identity import config_hash, without_folders
from krontime.errors import UserError
from krontime.metrics import METRICS
from krontime.runs.record import Metrics, Record, Status
from krontime.storage import replacing

# The schema that readers elsewhere rely on; a change needs a new schema version.
FIELDS = [
    "schema_version",
    "status",
    "model",
    "data",
    "seed",
    "config",
    "config_hash",
    "protocol",
    "metrics",
    "num_parameters",
    "train_time_s",
    "peak_memory_bytes",
    "inference_ms_per_series",
    "num_steps",
    "max_steps",
    "limited_by",
    "train_cpu_s",
    "warm_up_s",
    "part_times_s",
    "memory_of",
    "device",
    "versions",
    "git",
    "started_at",
    "finished_at",
    "error",
]


def test_the_file_has_the_fields_of_the_schema(tmp_path, make_record):
    make_record().write(tmp_path / "record.json")
    content = json.loads((tmp_path / "record.json").read_text())
    assert set(content) == set(FIELDS)
    assert content["schema_version"] == 3
    assert content["status"] == "completed"
    assert METRICS == ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "nll", "ece")


def test_round_trip_is_exact(tmp_path, make_record, make_protocol):
    record = make_record(
        accuracy=0.1 + 0.2,
        protocol=make_protocol(
            train_class_counts={'冷蔵庫 "x"': 40, "Ofen, groß": 3},
            group="speaker",
            fold=2,
            preparation={"resample_length": 512, "crop": None},
            windowing={"length": 100, "stride": 50},
        ),
    )
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("status", [Status.FAILED, Status.OUT_OF_MEMORY, Status.INTERRUPTED])
def test_round_trip_of_a_run_that_did_not_get_far(tmp_path, make_record, status):
    record = make_record(
        status=status,
        error="zwei\nZeilen",
        protocol=None,
        num_parameters=None,
        train_time_s=None,
        peak_memory_bytes=None,
        git=None,
        finished_at=None,
    )
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_become_none(tmp_path, make_record, value):
    test = {"accuracy": 0.5, "auroc": value}
    record = make_record(metrics=Metrics(val={"nll": value}, test=test))
    assert record.metrics.test == {"accuracy": 0.5, "auroc": None}
    record.write(tmp_path / "record.json")
    text = (tmp_path / "record.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert Record.read(tmp_path / "record.json").metrics.val == {"nll": None}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_config_with_infinity_keeps_its_hash_through_the_file(tmp_path, make_record, value):
    config = {"seed": 0, "stop": {"threshold": value}, "sizes": (4, 5)}
    make_record(config=config).write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json").config_hash == config_hash(config)


TAMPERINGS = [
    (("config", "model", "depth"), 3, "config_hash"),
    (("config_hash",), "0" * 12, "config_hash"),
    (("seed",), 1, "seed"),
    (("seed",), "0", "seed"),
    (("seed",), True, "seed"),
    (("status",), "done", "status"),
    (("status",), "failed", "error"),
    (("error",), "broke", "error"),
    (("metrics", "test", "accuracy"), None, "metrics.test.accuracy"),
    (("metrics", "test", "accuracy"), 87.0, "test.accuracy"),
    (("metrics", "test", "accuracy"), "0.87", "metrics.test.accuracy"),
    (("metrics", "test", "acuracy"), 0.9, "metrics.test.acuracy"),
    (("metrics", "validation"), {}, "metrics.validation"),
    (("protocol",), None, "protocol"),
    (("protocol", "num_test"), -1, "protocol.num_test"),
    (("protocol", "data_sha256"), "short", "protocol.data_sha256"),
    (("protocol", "selected_on"), "test", "protocol.selected_on"),
    (("train_time_s",), -1.0, "train_time_s"),
    (("peak_memory_bytes",), 1.5, "peak_memory_bytes"),
    (("started_at",), "2026-01-02T03:04:05", "started_at"),
    (("finished_at",), "2020-01-02T03:04:05Z", "finished_at"),
    (("git", "commit"), "main", "git.commit"),
    (("device",), "cpu", "device"),
    (("notes",), "an extra key", "notes"),
]


@pytest.mark.parametrize(("keys", "value", "named"), TAMPERINGS)
def test_a_tampered_record_is_refused_by_file_and_field(tmp_path, make_record, keys, value, named):
    path = tmp_path / "record.json"
    make_record().write(path)
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        Record.read(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize("key", ["status", "seed", "protocol", "metrics", "config_hash", "device", "started_at"])
def test_a_missing_field_is_named(tmp_path, make_record, key):
    path = tmp_path / "record.json"
    make_record().write(path)
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"record\.json: {key}: "):
        Record.read(path)


def test_all_wrong_fields_are_reported_at_once(tmp_path, make_record):
    path = tmp_path / "record.json"
    make_record().write(path)
    content = json.loads(path.read_text()) | {"status": "done", "seed": "x", "model": ""}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        Record.read(path)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == ["status", "model", "seed"]


@pytest.mark.parametrize("version", [0, 4, "3", True, None, 1.0])
def test_another_schema_version_is_one_clear_error(tmp_path, make_record, version):
    path = tmp_path / "record.json"
    make_record().write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version, "new": 1}))
    with pytest.raises(UserError, match=r"schema_version=.*reads 1, 2, 3") as caught:
        Record.read(path)
    assert len(caught.value.problems) == 1


def test_a_missing_damaged_or_partial_file_is_a_user_error(tmp_path, make_record):
    path = tmp_path / "record.json"
    with pytest.raises(UserError, match=r"record\.json"):
        Record.read(path)
    make_record().write(path)
    whole = path.read_bytes()
    for partial in (b"", whole[: len(whole) // 2], whole[:-3], b"[]", b"null", b"\xff\xfe{}"):
        path.write_bytes(partial)
        with pytest.raises(UserError, match=r"record\.json"):
            Record.read(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "record.json"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_a_record_is_frozen_and_its_times_have_a_zone(make_record):
    record = make_record()
    with pytest.raises(ValidationError):
        record.seed = 3
    with pytest.raises(ValidationError, match="started_at"):
        make_record(started_at=datetime(2026, 1, 1))


CONFIG = {
    "seed": 0,
    "paths": {"data": "/home/a/data", "output": "/home/a/out"},
    "data": {"path": "/home/a/data/x.npz", "name": "data"},
    "model": {"depth": 2, "sizes": [8, 4]},
    "trainer": {"max_epochs": 5, "accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"},
    "logger": {"csv": {}},
    "hydra": {"job": 1},
    "force": False,
}


def changed(keys: str, value: object) -> dict:
    config = json.loads(json.dumps(CONFIG))
    place = config
    *folders, last = keys.split(".")
    for key in folders:
        place = place[key]
    place[last] = value
    return config


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("force", True),
        ("checkpoint_every_n_steps", 5),
        ("hydra", {"job": 2}),
        ("logger", None),
        ("paths.output", "/elsewhere"),
        ("trainer.accelerator", "gpu"),
        ("trainer.devices", 4),
        ("trainer.num_nodes", 2),
        ("trainer.strategy", "ddp"),
    ],
)
def test_paths_and_devices_are_no_part_of_a_jobs_identity(keys, value):
    assert config_hash(changed(keys, value)) == config_hash(CONFIG)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("seed", 1),
        ("seed", None),
        ("model.depth", 3),
        ("model.sizes", [4, 8]),
        ("model.force", True),
        ("data.name", "other"),
        ("data.path", "/home/a/data/y.npz"),
        ("data.path", "/home/a/database/x.npz"),
        ("trainer.max_epochs", 6),
        ("trainer.precision", "bf16-mixed"),
    ],
)
def test_everything_else_is(keys, value):
    assert config_hash(changed(keys, value)) != config_hash(CONFIG)


def test_the_same_data_in_another_folder_is_the_same_job():
    moved = changed("paths.data", "/mnt/b/")
    moved["data"]["path"] = "/mnt/b/x.npz"
    assert config_hash(moved) == config_hash(CONFIG)
    assert config_hash(CONFIG) != config_hash(changed("paths.data", "/mnt/b"))


def test_only_what_lies_inside_a_folder_is_relative_to_it():
    beside = {"paths": {"data": "/a/data"}, "file": "/a/database/x"}
    assert config_hash(beside) != config_hash({"paths": {"data": "/b/data"}, "file": "/b/database/x"})


@pytest.mark.parametrize("folder", ["ACSF1", "auto", "val", "outputs", "/outputs"])
def test_a_job_stays_itself_whatever_the_output_folder_is_called(folder):
    def config(folder: str, name: str) -> dict:
        return {
            "paths": {"output": folder, "data": "data"},
            "data": {"name": name, "method": "auto", "names": ["ACSF1"], "path": "data/x.npz"},
            "callbacks": {"monitor": "val/nll"},
        }

    assert config_hash(config(folder, "ACSF1")) == config_hash(config("elsewhere", "ACSF1"))
    assert config_hash(config(folder, "ACSF1")) != config_hash(config(folder, "Rock"))
    assert config_hash(config(folder, folder)) != config_hash(config("elsewhere", "elsewhere"))
    kept = without_folders(config(folder, folder))
    assert kept["paths"] == {"output": "<output>", "data": "<data>"}
    assert kept["data"] == {"name": folder, "method": "auto", "names": ["ACSF1"], "path": "<data>/x.npz"}
    assert kept["callbacks"] == {"monitor": "val/nll"}
    assert without_folders(kept) == kept


def test_a_folder_itself_is_a_path_where_it_has_a_slash():
    for folder in ("/mnt/data", "outputs/data"):
        result = without_folders({"paths": {"data": folder}, "source": {"folder": folder}})
        assert result["source"]["folder"] == "<data>"


def test_the_innermost_folder_names_a_path():
    nested = {"paths": {"root": "/a", "data": "/a/data"}, "file": "/a/data/x"}
    assert config_hash(nested) == config_hash({"paths": {"root": "/a", "data": "/mnt"}, "file": "/mnt/x"})


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_the_hash_is_12_hex_digits_whatever_the_order_of_keys(config):
    value = config_hash(config)
    assert len(value) == 12
    assert set(value) <= set("0123456789abcdef")
    assert config_hash(dict(reversed(config.items()))) == value


LIMITS = {"max_train": 50, "method": "stratified", "fold": 1}


@pytest.mark.parametrize(
    ("validation", "changes", "problem"),
    [
        (LIMITS, {"num_train": 51}, "num_train is 51 but the config gives 50"),
        (LIMITS, {"split_method": "group"}, "split_method is 'group' but the config gives 'stratified'"),
        (LIMITS, {"fold": 1}, "fold is 1 but the config gives None"),
        ({**LIMITS, "method": "kfold"}, {"split_method": "kfold", "fold": 2}, "fold is 2 but the config gives 1"),
        ({**LIMITS, "max_train": "many"}, {"num_train": 51}, None),
        ({**LIMITS, "method": "auto"}, {"split_method": "group"}, None),
    ],
)
def test_a_split_is_the_one_that_the_config_asks_for(make_record, make_protocol, validation, changes, problem):
    config = {"seed": 0, "data": {"validation": validation}}
    changed = make_protocol(**{"num_train": 50, **changes})
    if problem is None:
        make_record(config=config, protocol=changed)
    else:
        with pytest.raises(ValidationError, match=problem):
            make_record(config=config, protocol=changed)


def test_a_reference_selects_nothing(make_record, make_protocol):
    config = {
        "seed": 0,
        "model": {"_target_": "krontime.models.aeon.AeonClassifier", "fit_on": "train"},
        "callbacks": {"checkpoint": {"monitor": "val/nll"}},
    }
    make_record(config=config, protocol=make_protocol(fitted_on="train", selection_metric=None))
    with pytest.raises(ValidationError, match="fitted_on is None but the config gives 'train'"):
        make_record(config=config, protocol=make_protocol(selection_metric=None))
    with pytest.raises(ValidationError, match="selection_metric is 'val/nll' but the config gives None"):
        make_record(config=config, protocol=make_protocol(fitted_on="train", selection_metric="val/nll"))
