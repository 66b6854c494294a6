"""An output that can't be written is refused in one message before the work, by every command that has one."""

import re
from pathlib import Path

import pytest

from krontime import cli

NAME = "n" * 300
COMMANDS = {
    "audit": "data=npz data.path=nothing.npz output=FILE.md",
    "benchmark": "output=FILE",
    "benchmark of a run": "run=nothing output=FILE",
    "benchmark cells": "output=out cells=FILE",
    "data": "data=npz data.path=nothing.npz plot=FILE.png",
    "explain": "run=nothing input=nothing.npz output=FILE.html",
    "export": "run=nothing output=FILE",
    "overhead": "data=npz data.path=nothing.npz output=FILE.json",
    "predict": "run=nothing input=nothing.npz output=FILE.csv",
    "predict segments": "run=nothing input=nothing.npz output=out.csv segments=FILE.csv",
    "predict what grows": "run=nothing input=nothing.csv follow=true output=FILE.csv",
    "report": "run=nothing output=FILE.html",
    "tables": "records=[nothing] output=FILE",
    "tables in a page": "records=[nothing] readme=FILE.md",
    "train's cache": "data=npz data.path=good.npz paths.cache=FILE",
    "tune": "data=npz data.path=nothing.npz folder=FILE",
}


def refused(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(command.split())
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.npz").write_bytes(b"")
    command = re.split(r"\W", name)[0]
    assert "File name too long" in refused(f"{command} {COMMANDS[name]}".replace("FILE", NAME), capsys)


@pytest.mark.parametrize("key", ["train paths.output", "predict output", "tables output", "benchmark cells"])
def test_a_path_without_text_or_with_an_address_is_refused(capsys: pytest.CaptureFixture[str], key: str) -> None:
    assert f"{key.split()[1]}=: expected a path" in refused(f"{key}=", capsys)
    said = refused(f"{key}='https://me:hush@host/x'", capsys)
    assert f"{key.split()[1]}=https://...: expected a path on this machine" in said
    assert "hush" not in said


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("predict run=nothing input=new.csv output=./new.csv", "output='new.csv': expected another file than input"),
        ("predict run=nothing input=new.csv output=out.csv segments=new.csv", "segments='new.csv': expected another"),
        (
            "predict run=nothing input=new.csv output=a.csv segments=a.csv",
            "segments='a.csv': expected another file than",
        ),
        (
            "predict run=nothing input=new.csv follow=true output=new.csv",
            "output='new.csv': expected another file than",
        ),
        ("explain run=nothing input=new.csv output=new.html", "output='new.csv': expected another file than input"),
        ("audit data=npz data.path=nothing.npz output=new.md", "output='new.md': expected a new name, or a page"),
    ],
)
@pytest.mark.parametrize("force", [True, False])
def test_what_is_read_is_not_written_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    says: str,
    force: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("new.csv", "new.md"):
        (tmp_path / name).write_text("1,2\n")
    said = refused(command + (" force=true" if force and not command.startswith("audit") else ""), capsys)
    assert says in " ".join(said.split())
    assert "a new name, or force" not in said
    assert (tmp_path / "new.csv").read_text() == (tmp_path / "new.md").read_text() == "1,2\n"
