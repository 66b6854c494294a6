"""Every data config says what it is, explains its keys, and yields a source."""

import re

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from krontime.config import resolve, targets
from krontime.config.files import config_dir, options, summary
from krontime.data.prepare import Prepare
from krontime.data.recordings import Streams

NAMES = options("data")
RECORDINGS = ("prices", "stacked", "long_table", "wfdb", "edf", "arrays", "audio_recordings", "huggingface")


@pytest.fixture
def composed(monkeypatch, tmp_path):
    monkeypatch.setenv("KRONTIME_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("KRONTIME_CACHE", str(tmp_path / "cache"))
    resolve.register_resolvers()

    def composed(*overrides: str) -> dict:
        with initialize_config_dir(str(config_dir()), version_base=None):
            config = compose("train", [*overrides])
        data = OmegaConf.to_container(config.data, resolve=True)
        assert isinstance(data, dict)
        return data

    return composed


def test_the_choices_are_those_of_the_guide():
    assert {
        "ucr",
        "npz",
        "ts",
        "csv",
        "ucr_text",
        "monster",
        "audio",
        "synthetic",
        *RECORDINGS,
        "bonn_eeg",
        "fsdd",
        "fsdd_speakers",
        "mitbih_ecg",
        "esc10",
        "ctu_uhb_ctg",
    } <= set(NAMES)
    assert "common" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_config_opens_with_what_it_is(name):
    assert 30 < len(summary(config_dir() / "data" / f"{name}.yaml")) < 160


def test_every_shared_key_is_explained():
    for name in ("common", "recordings"):
        for line in (config_dir() / "data" / "base" / f"{name}.yaml").read_text().splitlines():
            if re.match(r"^\s*\w+: \S", line) and ": ${" not in line:
                assert "  # " in line, line


@pytest.mark.parametrize("name", NAMES)
def test_a_config_composes_into_a_source(composed, name):
    train, path = "data.train=a/Some", "data.path=a/Some"
    given = {"npz": [f"{path}.npz"], "ts": [f"{train}.ts"], "csv": [f"{train}.csv"], "audio": [path]}
    given = {**given, "ucr_text": [f"{train}.tsv"], **{key: [path] for key in RECORDINGS}}
    given["prices"] = [path, "data.source.validation_from=2018-01-01"]
    given = given.get(name, [])
    data = composed(f"data={name}", *given)
    source = targets.instantiate(data["source"], "data.source")
    assert isinstance(source, Streams) or callable(source.load)
    assert isinstance(data["name"], str)
    if given:
        assert data["name"] == "Some"
    assert Prepare(**data["prepare"]) == Prepare()
    assert data["validation"]["method"] == ("stratified" if name == "fsdd" else "auto")


def test_a_named_data_set_takes_another_file(composed, tmp_path):
    assert composed("data=bonn_eeg")["source"]["path"] == str(tmp_path / "data" / "BonnEEG.npz")
    data = composed("data=ctu_uhb_ctg", "data.path=/else/where.npz")
    assert data["source"]["path"] == "/else/where.npz"
    assert data["source"]["missing_channels"] == [0]


def test_an_archive_name_reaches_the_source(composed):
    data = composed("data=ucr", "data.name=GunPoint")
    assert data["source"]["name"] == "GunPoint"
