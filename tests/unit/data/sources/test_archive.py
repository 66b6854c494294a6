"""A data set by its name: which of several files is read."""

from pathlib import Path

import numpy as np
import pytest

from krontime.data.sources.archive import ArchiveSource

TS = "@univariate true\n@equalLength true\n@classLabel true a b\n@data\n{}\n"


def write_npz(folder: Path, value: float) -> None:
    np.savez(folder / "Own.npz", X=np.full((4, 1, 3), value), y=[0, 1, 0, 1], split=[0, 0, 1, 1])


def write_ts(folder: Path, value: float) -> None:
    folder.mkdir(exist_ok=True)
    for split in ("TRAIN", "TEST"):
        rows = "\n".join(f"{value},{value},{value}:{label}" for label in "ab")
        (folder / f"Own_{split}.ts").write_text(TS.format(rows))


def source(folder: Path, name: str = "Own") -> ArchiveSource:
    return ArchiveSource(name, str(folder / name), str(folder / "downloads"))


def test_a_container_comes_before_text_files_and_these_before_the_archive(tmp_path):
    write_ts(tmp_path / "Own", 1)
    write_ts(tmp_path / "downloads", 9)
    assert source(tmp_path).load().values[0] == 1
    write_ts(tmp_path, 2)
    assert source(tmp_path).load().values[0] == 2
    described = source(tmp_path).describe()
    write_npz(tmp_path, 3)
    data = source(tmp_path).load()
    assert data.values[0] == 3
    assert data.is_test.tolist() == [False, False, True, True]
    assert source(tmp_path).describe() != described
    assert source(tmp_path).describe()["name"] == described["name"] == "Own"


def test_what_is_in_no_folder_is_of_the_archive(tmp_path):
    assert len(source(tmp_path, "ACSF1").load()) == 200
    with pytest.raises(ValueError, match=r"^name='Own': expected the name of a UCR or UEA data set"):
        source(tmp_path).describe()


@pytest.mark.parametrize("name", ["", "../ACSF1", "a/b"])
def test_a_name_is_no_path(tmp_path, name):
    with pytest.raises(ValueError, match=r"^name="):
        ArchiveSource(name, str(tmp_path / "x"), str(tmp_path)).describe()
