"""A path alone says what it holds; where it does not, one message says what would."""

from pathlib import Path

import numpy as np
import pytest

from krontime.commands.inferred import with_data
from krontime.errors import UserError


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("sounds/cat/a.wav", "2024/train/dog/b.flac", "flat/a.wav", "ecg/100.hea", "ecg/100.dat", "one.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"RIFF")
    np.savez(tmp_path / "set.npz", X=np.ones((2, 3)))
    (tmp_path / "table.csv").write_text("t0,t1,label\n1,2,a\n3,4,b\n")
    (tmp_path / "Gun").mkdir()
    for part in ("TRAIN", "TEST"):
        (tmp_path / "Gun" / f"Gun_{part}.tsv").write_text("1\t0.1\t0.2\n2\t0.3\t0.4\n1\t0.1\t0.5\n2\t0.3\t0.6\n")
        (tmp_path / f"Wave_{part}.ts").write_text("@data\n1,2:a\n")
    (tmp_path / "tables").mkdir()
    for name in ("train.csv", "test.csv"):
        (tmp_path / "tables" / name).write_text("t0,label\n1,a\n")
    (tmp_path / "frame.parquet").write_bytes(b"PAR1")
    (tmp_path / "unpacked" / "Wave").mkdir(parents=True)
    (tmp_path / "unpacked" / "Wave" / "Wave_TRAIN.ts").write_text("@data\n1,2:a\n")
    return tmp_path


GOOD = {
    "sounds": ["data=audio", "data.path={site}/sounds"],
    "2024": ["data=audio", "data.path={site}/2024"],
    "set.npz": ["data=npz", "data.path={site}/set.npz"],
    "table.csv": ["data=csv", "data.train={site}/table.csv"],
    "Gun": ["data=ucr_text", "data.train={site}/Gun/Gun_TRAIN.tsv", "data.test={site}/Gun/Gun_TEST.tsv"],
    "Gun/Gun_TRAIN.tsv": ["data=ucr_text", "data.train={site}/Gun/Gun_TRAIN.tsv", "data.test={site}/Gun/Gun_TEST.tsv"],
    "Wave_TRAIN.ts": ["data=ts", "data.train={site}/Wave_TRAIN.ts", "data.test={site}/Wave_TEST.ts"],
    "tables": ["data=csv", "data.train={site}/tables/train.csv", "data.test={site}/tables/test.csv"],
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("command", ["train", "data", "tune"])
def test_a_path_says_what_it_holds(site, name, command):
    expected = [text.format(site=site) for text in GOOD[name]]
    assert with_data(command, ["seed=1", f"data.path={site / name}"]) == ["seed=1", *expected]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://bucket/x.npz", ["data=npz", "data.path=s3://bucket/x.npz"]),
        ("https://example.org/a/x.csv", ["data=csv", "data.train=https://example.org/a/x.csv"]),
        ("https://example.org/a/x.ts", ["data=ts", "data.train=https://example.org/a/x.ts"]),
    ],
)
def test_an_address_says_by_its_name(address, expected):
    assert with_data("train", [f"data.path={address}"]) == expected


def test_an_address_that_does_not_say_is_refused():
    with pytest.raises(UserError, match=r"data\.path='s3://bucket/sounds': expected data=KIND beside it"):
        with_data("train", ["data.path=s3://bucket/sounds"])


BAD = {
    "nowhere": "there is no such file or folder",
    "1" * 3000: "there is no such file or folder",
    "one.wav": "is one recording",
    "flat": "subfolder for each class",
    "ecg": r"1 \.hea.*numpy\.savez",
    "frame.parquet": r"pandas\.read_parquet",
    "unpacked": r"in folders below; expected .*data\.path=\S+/unpacked/Wave$",
}


def test_a_folder_of_links_and_one_named_like_somebodys_home_are_read(site, monkeypatch):
    (site / "~no-one-of-this-name").mkdir()
    (site / "~no-one-of-this-name" / "cat").symlink_to(site / "sounds" / "cat")
    monkeypatch.chdir(site)
    assert with_data("train", ["data.path=~no-one-of-this-name"]) == ["data=audio", "data.path=~no-one-of-this-name"]


@pytest.mark.parametrize("key", ["data.path", "data.train"])
def test_an_empty_path_is_told(key):
    with pytest.raises(UserError, match=f"{key}='': expected a file or a folder"):
        with_data("train", [f"{key}="])


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_read_is_told(site, name):
    with pytest.raises(UserError, match=BAD[name]):
        with_data("train", [f"data.path={site / name}"])


@pytest.mark.parametrize(
    "arguments",
    [["data=npz", "data.path=x"], ["seed=1"], ["-m", "data.path=glob(*)"], ["experiment=acsf1", "data.path=x"]],
)
def test_what_was_chosen_stays(arguments):
    assert with_data("train", arguments) == arguments


def test_a_sweep_takes_one_path_or_several_of_a_kind(site):
    one, two = site / "sounds", site / "2024"
    assert with_data("train", ["-m", f"data.path={one}"]) == ["-m", "data=audio", f"data.path={one}"]
    assert with_data("train", ["-m", f"data.path={one},{two}"]) == ["-m", "data=audio", f"data.path={one},{two}"]
    for other in ("set.npz", "Gun"):
        with pytest.raises(UserError, match="expected data=KIND"):
            with_data("train", ["-m", f"data.path={one},{site / other}"])
    with pytest.raises(UserError, match="there is no such file"):
        with_data("train", ["-m", f"data.path={one},nowhere"])


def test_commands_without_data_are_left_alone():
    assert with_data("predict", ["data.path=x"]) == ["data.path=x"]
