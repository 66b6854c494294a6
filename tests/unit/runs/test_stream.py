"""Points become the same windows however they arrive; files that grow are followed until a signal."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from krontime.errors import UserError
from krontime.runs.signals import Stopping
from krontime.runs.stream import PointParser, WindowCutter, read_chunks

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("length", "stride"), [(10, 10), (10, 3), (10, 1), (4, 7), (1, 1)])
def test_windows_are_those_of_the_whole_however_it_is_cut(length, stride):
    points = RNG.normal(size=(2, 100)).astype(np.float32)
    cutter = WindowCutter(2, length=length, stride=stride)
    windows, position = [], 0
    while position < 100:
        size = int(RNG.integers(1, 25))
        windows += cutter.feed(points[:, position : position + size], 0.0)
        position += size
    expected = sliding_window_view(points, length, axis=1)[:, ::stride]
    assert len(windows) == expected.shape[1]
    for number, window in enumerate(windows):
        assert (window.number, window.start) == (number, number * stride)
        np.testing.assert_array_equal(window.values, expected[:, number])
    covered = (len(windows) - 1) * stride + max(length, stride)
    assert cutter.num_left == max(0, 100 - covered)


def test_lines_become_points_wherever_they_are_broken():
    text = b"volt,amp\n1,2\r\n\n3.5, -4\n,nan\n?,1e3\n7,8"
    for size in (1, 3, 100):
        parser = PointParser(2, ",", "x")
        parts = [parser.feed(text[i : i + size]) for i in range(0, len(text), size)] + [parser.end()]
        expected = [[1, 3.5, np.nan, np.nan, 7], [2, -4, np.nan, 1000, 8]]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), np.array(expected, np.float32))


def test_channels_that_are_named_are_put_in_the_order_of_training():
    for text in (b'amp,"volt"\n1,2\n', b"volt,amp\n2,1\n", b"2,1\n"):
        np.testing.assert_array_equal(PointParser(2, ",", "x", ("volt", "amp")).feed(text), [[2], [1]])
    with pytest.raises(UserError, match="line 1 names the channels volt, ohm: expected volt, amp, as in training"):
        PointParser(2, ",", "x", ("volt", "amp")).feed(b"volt,ohm\n1,2\n")


def test_any_white_space_separates():
    np.testing.assert_array_equal(PointParser(2, " ", "x").feed(b" 1   2\n3\t4\n"), [[1, 3], [2, 4]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1,2\n1,b\n", "x: line 2: value 1 is 'b': expected a number"),
        (b"1,-\n1,2\n", "x: line 1: value 1 is '-': expected a number"),
        (b"1,2\n1\n", "x: line 2 has 1 values: expected 2, one for each channel"),
        (b"1,1e99\n", "x: infinite values"),
        (b"1" * 100_000, "x: line 1 does not end"),
    ],
)
def test_lines_that_are_no_points_are_named(text, expected):
    with pytest.raises(UserError) as refused:
        PointParser(2, ",", "x").feed(text)
    assert expected in str(refused.value)


def test_a_first_window_that_float32_does_not_hold_gives_a_warning(caplog):
    for offset in (100, 1e9):
        parser = PointParser(1, ",", "x", ("volt",), num_checked=30)
        lines = [f"{value}\n".encode() for value in offset + RNG.normal(size=40)]
        points = [parser.feed(line) for line in lines[:29]]
        assert np.concatenate(points, axis=1).shape == (1, 29)
        assert not caplog.messages
        assert parser.feed(b"".join(lines[29:])).shape == (1, 11)
    (message,) = caplog.messages
    assert message.startswith("x: channel 'volt': values that vary by")
    assert "as in the first window" in message


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_file_that_grows_is_read_until_a_signal(tmp_path, number):
    path = tmp_path / "grows"
    path.write_bytes(b"a")

    def grow() -> None:
        for letter in b"bcd":
            with path.open("ab") as file:
                file.write(bytes([letter]))
            time.sleep(0.02)
        while b"".join(seen) != b"abcd":
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    seen: list[bytes] = []
    before = signal.getsignal(number)
    writer = threading.Thread(target=grow)
    with Stopping.on_signals() as stopping:
        writer.start()
        for chunk in read_chunks(str(path), stopping):
            seen.append(chunk)
    writer.join()
    assert stopping.came
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_a_pipe_ends_with_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"some text"))
    writer.start()
    assert b"".join(read_chunks(str(tmp_path / "pipe"), Stopping())) == b"some text"
    writer.join()


def test_a_file_that_is_cut_short_or_is_not_there_is_named(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abcd")
    chunks = read_chunks(str(path), Stopping())
    assert next(chunks) == b"abcd"
    path.write_bytes(b"a")
    with pytest.raises(UserError, match="was cut short while it was followed"):
        next(chunks)
    with pytest.raises(UserError, match=r"input='.*none': can't be read \(No such file"):
        next(read_chunks(str(tmp_path / "none"), Stopping()))
