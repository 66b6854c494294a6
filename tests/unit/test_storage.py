"""What a killed process leaves is removed, and nothing else; the file before is kept where asked."""

from pathlib import Path

import pytest

from krontime.storage import remove_unfinished, replacing


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
