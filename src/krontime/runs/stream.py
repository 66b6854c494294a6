"""Reads time points line by line, from a file that grows or from a pipe, and cuts them into windows as they come.

Shape letters: C channels, L points of a window, m points that came together.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from krontime.data.rounding import Rounding, Variation
from krontime.data.sources.text import is_number, numbers
from krontime.errors import UserError
from krontime.runs.signals import Stopping

STDIN = "-"

POLL_S = 0.05
"""Seconds between two reads of a file that has not grown."""

_CHUNK = 1 << 16
"""Number of bytes that are read at once, and that a line has, at most."""


class Window(NamedTuple):
    """A window of the points that arrived.

    Attributes:
        number: of the window, from 0.
        start: its first point, from 0.
        values: `(C, L)` float32, NaN where missing.
        arrived_s: when its last point was read, on the clock of `time.perf_counter`.
    """

    number: int
    start: int
    values: np.ndarray
    arrived_s: float


def read_chunks(given: str, stopping: Stopping) -> Iterator[bytes]:
    """Yield what a file or standard input holds and what is added to it, until it ends or a signal comes.

    Args:
        given: a path, or `-`. A regular file never ends; a pipe, a device and standard input do.
        stopping: says when a signal came.

    Raises:
        UserError: the file is not there, can't be read, or was cut short.
    """
    try:
        descriptor = os.dup(sys.stdin.fileno()) if given == STDIN else os.open(os.path.expanduser(given), os.O_RDONLY)
    except OSError as error:
        raise UserError(f"input={given!r}: can't be read ({error.strerror})") from error
    with open(descriptor, "rb", buffering=0) as file:
        grows = given != STDIN and stat.S_ISREG(os.fstat(descriptor).st_mode)
        position = 0
        while not stopping.came:
            chunk = None
            with stopping.waiting():
                chunk = file.read(_CHUNK)
                if not chunk and grows:
                    if os.fstat(descriptor).st_size < position:
                        raise UserError(f"input={given!r}: was cut short while it was followed")
                    time.sleep(POLL_S)
            if chunk:
                position += len(chunk)
                yield chunk
            elif chunk is not None and not grows:
                return


class PointParser:
    """Turns text into time points: one a line, a number for each channel.

    An empty field, `NaN`, `NA` or `?` is a missing value. The first line may name the channels, which are put in the
    order of training where that is known; empty lines are left out.

    Args:
        num_channels: C.
        separator: between the numbers of a line.
        name: of the input, for messages.
        channels: names of the channels in training; None where they had none.
        num_checked: points from the first of which it is known whether float32 holds their variation.
    """

    def __init__(
        self,
        num_channels: int,
        separator: str,
        name: str,
        channels: tuple[str, ...] | None = None,
        num_checked: int = 0,
    ) -> None:
        self.num_channels = num_channels
        self.separator = separator
        self.name = name
        self.channels = channels
        self.num_checked = num_checked
        self._variation: Variation | None = None
        self._order: list[int] | None = None
        self._rest = b""
        self._num_lines = 0

    def feed(self, chunk: bytes) -> np.ndarray:
        """Parse the points `(C, m)` of the lines that end in a chunk; keep the rest for the next.

        Raises:
            UserError: a line does not hold C numbers, or never ends.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _CHUNK:
            raise UserError(f"{self.name}: line {self._num_lines + len(lines) + 1} does not end: expected text")
        return self._points(lines)

    def end(self) -> np.ndarray:
        """Parse the point `(C, m)` of a last line that does not end; m is 0 or 1."""
        last, self._rest = self._rest, b""
        return self._points([last])

    def _points(self, lines: list[bytes]) -> np.ndarray:
        points = [point for line in lines if (point := self._point(line)) is not None]
        exact = np.array(points, np.float64).reshape(-1, self.num_channels).T
        self._check_rounding(exact)
        with np.errstate(over="ignore"):
            values = exact.astype(np.float32)
        if np.isinf(values).any():
            raise UserError(
                f"{self.name}: infinite values (or larger than float32 can hold) before line {self._num_lines}"
            )
        return values

    def _check_rounding(self, points: np.ndarray) -> None:
        """Warn of the first points, once there are enough of them, where float32 holds too little of them."""
        if self.num_checked <= 0 or (here := Variation.of(points)) is None:
            return
        self._variation = here if self._variation is None else self._variation | here
        self.num_checked -= points.shape[1]
        if self.num_checked <= 0:
            rounding = Rounding()
            rounding.add(self._variation, "the first window")
            rounding.warn(self.name, self.channels)

    def _point(self, line: bytes) -> np.ndarray | None:
        self._num_lines += 1
        text = line.decode("utf-8", "replace").strip(" \r\ufeff")
        if not text:
            return None
        try:
            values = numbers(
                ",".join(text.split()) if self.separator == " " else text, self.separator.strip(" ") or ","
            )
        except ValueError as error:
            fields = text.split() if self.separator == " " else text.split(self.separator)
            if self._num_lines == 1 and len(fields) == self.num_channels and not any(map(is_number, fields)):
                self._order = self._order_of([field.strip(' "') for field in fields])
                return None
            raise UserError(f"{self.name}: line {self._num_lines}: {error}") from error
        if len(values) != self.num_channels:
            raise UserError(
                f"{self.name}: line {self._num_lines} has {len(values)} values: expected {self.num_channels}, one for "
                f"each channel, separated by {self.separator!r}"
            )
        return values if self._order is None else values[self._order]

    def _order_of(self, names: list[str]) -> list[int] | None:
        """Positions of the channels in the order of training; None where they are in it, or it is not known."""
        if self.channels is None or names == list(self.channels):
            return None
        if sorted(names) != sorted(self.channels):
            raise UserError(
                f"{self.name}: line 1 names the channels {', '.join(names)}: expected {', '.join(self.channels)}, as "
                "in training"
            )
        return [names.index(name) for name in self.channels]


class WindowCutter:
    """Cuts points into windows as they come, and holds no more than one window.

    Args:
        num_channels: C.
        length: L.
        stride: points from the start of one window to that of the next.
    """

    def __init__(self, num_channels: int, *, length: int, stride: int) -> None:
        self.length = length
        self.stride = stride
        self._values = np.empty((num_channels, length), np.float32)
        self._num_held = 0
        self._num_skipped = 0
        self._number = 0

    @property
    def num_left(self) -> int:
        """Points at the end that fill no window and were in none."""
        overlap = max(0, self.length - self.stride) if self._number else 0
        return max(0, self._num_held - overlap)

    def feed(self, points: np.ndarray, arrived_s: float) -> Iterator[Window]:
        """Add points `(C, m)`, and yield the windows that they complete; each is a copy."""
        while points.shape[1]:
            skipped = min(self._num_skipped, points.shape[1])
            self._num_skipped -= skipped
            points = points[:, skipped:]
            taken = min(self.length - self._num_held, points.shape[1])
            self._values[:, self._num_held : self._num_held + taken] = points[:, :taken]
            self._num_held += taken
            points = points[:, taken:]
            if self._num_held == self.length:
                yield Window(self._number, self._number * self.stride, self._values.copy(), arrived_s)
                self._number += 1
                kept = max(0, self.length - self.stride)
                self._values[:, :kept] = self._values[:, self.length - kept :].copy()
                self._num_held = kept
                self._num_skipped = max(0, self.stride - self.length)
