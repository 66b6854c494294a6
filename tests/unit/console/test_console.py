"""What is printed where it can't be: nothing raises, whatever has become of the stream."""

import io
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import pytest
from rich.table import Table

from krontime import console
from krontime.console import fail, show
from krontime.console.streams import SafeStream, safe_streams
from krontime.runs.record import Status

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


@dataclass
class Cost:
    flops: int
    seconds: float


def test_json_holds_whatever_a_command_returns() -> None:
    class Pair(NamedTuple):
        path: Path
        score: float

    result = {
        1: Pair(Path("runs"), float("nan")),
        "cost": [Cost(3, 0.5), None],
        "array": np.arange(3),
        "number": np.float32(0.5),
        "status": Status.COMPLETED,
        "infinite": (float("inf"), True),
    }
    assert json.loads(json.dumps(console.plain(result), allow_nan=False)) == {
        "1": {"path": "runs", "score": None},
        "cost": [{"flops": 3, "seconds": 0.5}, None],
        "array": [0, 1, 2],
        "number": 0.5,
        "status": "completed",
        "infinite": [None, True],
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        now_s = [100.0]
        monkeypatch.setattr(console.time, "monotonic", lambda: now_s[0])
        return lambda seconds: now_s.__setitem__(0, now_s[0] + seconds)

    def count(self, clock: Callable[[float], None], step_s: float, total: int | None = 100) -> None:
        with console.progress("reading", total) as step:
            for _ in range(100):
                clock(step_s)
                step()

    def test_a_line_now_and_then_where_there_is_no_terminal(
        self, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        with console.output(quiet=False, as_json=False):
            self.count(clock, 0.3)
        assert caplog.messages == [
            "reading: 34 of 100, about 19.8 s left",
            "reading: 68 of 100, about 9.6 s left",
        ]

    def test_without_a_total(self, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        with console.output(quiet=False, as_json=True):
            self.count(clock, 0.15, total=None)
        assert caplog.messages == ["reading: 67 done"]

    def test_nothing_where_it_is_not_wanted(
        self, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        caplog.set_level("INFO")
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        self.count(clock, 1)  # in a notebook
        with console.output(quiet=True, as_json=False):
            self.count(clock, 1)
        with console.output(quiet=False, as_json=False), console.without_progress():
            self.count(clock, 1)
        assert caplog.messages == []
        assert terminal.getvalue() == ""

    def test_bars_on_a_terminal_one_below_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        with (
            console.output(quiet=False, as_json=False),
            console.progress("sweep", 2) as outer,
            console.progress("fitting", 50) as inner,
        ):
            for _ in range(50):
                inner()
            outer()
        drawn = terminal.getvalue()
        assert "fitting" in drawn
        assert "/50" in drawn
        assert "1/2" in drawn


@pytest.mark.parametrize("quiet", [True, False])
def test_a_command_that_prints_nothing_shows_that_it_is_at_work(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(console, "_LOOKED_S", 0.001)
    said = ""
    with console.output(quiet=quiet, as_json=False), console.signs_of_life("tables"):
        for _ in range(3):  # something is printed now and then
            now_s[0] += 9
            console.show("a row")
            time.sleep(0.02)
        assert capsys.readouterr().err == ""
        now_s[0] += 10
        for _ in range(5 if quiet else 1000):
            time.sleep(0.01)
            if said := said + capsys.readouterr().err:
                break
    assert said == ("" if quiet else "tables: still at work, 37.0 s so far\n")


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "job 1 of 12\n"), (3, "job 4 of 12, about 1 min 30 s left\n"), (11, "job 12 of 12, about 2.7 s left\n")],
)
def test_a_sweep_says_which_job_begins(
    number: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KRONTIME_SWEEP", "")
    console.sweep_notice(number)
    monkeypatch.setattr(console.time, "time", lambda: 1000.0)
    console.begin_sweep(12)
    monkeypatch.setattr(console.time, "time", lambda: 1030.0)
    with console.output(quiet=True, as_json=False):
        console.sweep_notice(number)
    with console.output(quiet=False, as_json=False):
        console.sweep_notice(number)
    assert capsys.readouterr().err == said
