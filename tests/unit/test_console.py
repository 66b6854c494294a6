"""What is printed where it can't be: nothing raises, whatever has become of the stream."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
from rich.table import Table

from krontime.console import SafeStream, fail, safe_streams, show

CLASSES = "正常 / 異常 / anomalía"


def full() -> TextIO:
    return open("/dev/full", "w", buffering=1)


def without_reader() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", buffering=1)


def lost_terminal() -> TextIO:
    ours, theirs = pty.openpty()
    os.close(ours)
    return os.fdopen(theirs, "w", buffering=1)


def closed() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


def narrow(encoding: str) -> Callable[[], TextIO]:
    return lambda: io.TextIOWrapper(io.BytesIO(), encoding=encoding)


STREAMS = [full, without_reader, lost_terminal, closed, narrow("ascii"), narrow("latin-1"), narrow("cp1252")]


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> Iterator[TextIO]:
    opened = request.param()
    yield opened
    safe = SafeStream(opened)
    safe.settle()
    opened.close()


def test_what_can_be_printed_is_and_the_rest_is_lost(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    table = Table("class", "series")
    table.add_row(CLASSES, "3")
    show(CLASSES)
    show(table)
    with safe_streams(is_last=False):
        for _ in range(3):
            print(CLASSES * 5000, flush=True)  # noqa: T201
        sys.stdout.writelines([CLASSES, "\n"])
    assert sys.stdout is stream


def test_mistakes_keep_their_exit_code(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit) as stop:
        fail([CLASSES, "another"])
    assert stop.value.code == 2


def test_characters_that_an_encoding_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    show(f"{CLASSES} {Path('runs')}")
    assert written.getvalue() == b"\\u6b63\\u5e38 / \\u7570\\u5e38 / anomal\xeda runs\n"


def test_a_stream_that_works_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with safe_streams(is_last=False):
        assert not sys.stdout.isatty()
        assert sys.stdout.write("one\n") == 4
        with safe_streams(is_last=False):
            show("two")
    assert stream.getvalue() == "one\ntwo\n"


def test_a_closed_standard_output_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    show(CLASSES)
    with safe_streams(is_last=False):
        print(CLASSES)  # noqa: T201


COMMAND = [sys.executable, "-m", "krontime", "--help"]


@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        ("| true", ""),
        (">&-", ""),
        (">/dev/full", "krontime: standard output can't be written (No space left on device)"),
    ],
)
def test_the_exit_code_is_the_commands_own(redirection: str, said: str) -> None:
    """Python itself would end with 120, and complain."""
    script = f'"$0" "$@" {redirection}; echo "${{PIPESTATUS[0]}}" >&2'
    done = subprocess.run(["bash", "-c", script, *COMMAND], capture_output=True, text=True, timeout=60)
    *lines, code = done.stderr.splitlines()
    assert code == "0"
    assert "".join(lines).startswith(said)
    assert len(lines) == bool(said)
