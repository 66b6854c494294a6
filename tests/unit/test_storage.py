"""What a killed process leaves is removed, and nothing else; the file before is kept where asked; addresses."""

import errno
import os
from pathlib import Path

import pytest

from krontime import storage
from krontime.storage import is_address, remove_unfinished, replacing, secret_problem, writing_problem


def test_what_was_being_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {"record.json", ".metrics.csv.kept", ".hydra", ".record.json.0123", "x.0123456789abcdef0123456789abcdef"}
    for name in (*kept, ".record.json.0123456789abcdef0123456789abcdef"):
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    remove_unfinished(tmp_path / "missing")


def test_the_file_before_is_kept_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    path, before = tmp_path / "a", tmp_path / "b"
    for text in ("one", "two"):
        with replacing(path, keep=before) as temporary:
            temporary.write_text(text)
    assert (path.read_text(), before.read_text()) == ("two", "one")
    with pytest.raises(ZeroDivisionError), replacing(path, keep=before) as temporary:
        temporary.write_text(str(1 // 0))
    assert sorted(tmp_path.iterdir()) == [path, before]
    assert (path.read_text(), before.read_text()) == ("two", "one")


@pytest.mark.parametrize("name", ["new.csv", "a/b/new.csv", "file.csv", "folder"])
def test_what_can_be_written_is_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.csv").write_text("")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert writing_problem(tmp_path / name) is None
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_that_can_not_be_looked_at_is_a_problem(tmp_path: Path) -> None:
    assert "File name too long" in str(writing_problem(tmp_path / ("a" * 5000) / "b"))
    assert "File name too long" in str(writing_problem(tmp_path / ("a" * 250)))  # the temporary name is longer
    assert writing_problem(Path("~no-one-of-this-name/x.csv")) is None  # a folder like any other


@pytest.mark.parametrize("name", ["file.csv/new.csv", "file.csv/a/b", "link/new.csv"])
def test_what_lies_in_a_file_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.csv").write_text("")
    (tmp_path / "link").symlink_to("file.csv")
    assert "is no folder" in str(writing_problem(tmp_path / name))


@pytest.mark.parametrize("target", ["nothing", "link"])
def test_a_link_to_nothing_cannot_be_written(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    assert f"{tmp_path / 'link'} is a link to nothing" == writing_problem(tmp_path / "link" / "a.csv")


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.EROFS, "Read-only file system"), (errno.EACCES, "Permission denied"), (errno.ENOSPC, "No space left")],
)
def test_a_folder_that_takes_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    def refusing(**_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refusing)
    assert str(writing_problem(tmp_path / "a" / "b.csv")).startswith(f"{tmp_path}: {said}")


@pytest.mark.parametrize(
    "address", ["abfs://container@account/x", "sftp://me@host/x", "s3://bucket/x?y", "https://h/a@b:c"]
)
def test_what_is_no_secret_may_stand_in_an_address(address: str) -> None:
    assert secret_problem("data.path", address) is None


@pytest.mark.parametrize("value", ["C:\\x.npz", "set/x.npz", "C://x", "", None, 3, "s3:/x", "a b://x"])
def test_other_values_are_no_addresses(value: object) -> None:
    assert not is_address(value)
