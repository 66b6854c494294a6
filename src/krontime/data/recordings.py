"""Recordings as sources yield them, one at a time, and how they are stored while they are read.

Shape letters: C channels, L time points, R recordings, m annotations.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from krontime.data import copies
from krontime.data.assemble import class_order, header_line, label_texts
from krontime.data.prepare import Prepare
from krontime.data.rounding import Rounding, Variation
from krontime.data.series import UNKNOWN_LABEL, SeriesData, unscaled
from krontime.data.sources.labelled import label_problem
from krontime.data.values_file import ValuesFile
from krontime.errors import UserError

STORED_AS = (np.float32, np.int16, np.int8, np.uint8)
"""Types that are stored as they are; all others become float32."""

MAX_SHOWN = 5


class Span(NamedTuple):
    """A stretch of a recording that has a label: from point `start` to before point `stop`."""

    start: int
    stop: int
    label: str


@dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes:
        name: for messages and tables.
        values: `(C, L)` numbers; NaN is missing.
        spans: what is known of its stretches; empty where nothing is.
        label: its class, where it has one as a whole; None else.
        group: what it shares with other recordings (patient, machine); None for its own name.
        part: which split it belongs to.
        sampling_rate_hz: points per second, where known.
        scale: float64 `(C, 2)`, factor and summand for integers; None for numbers as they are.
        missing_code: the integer that stands for a missing value; None where there is none.
        channels: names of the channels, where they have names.
        variation: of the values before they were float32, where the source made them so; None else.
    """

    name: str
    values: np.ndarray
    spans: Sequence[Span] = ()
    label: str | None = None
    group: str | None = None
    part: Literal["train", "validation", "test"] = "train"
    sampling_rate_hz: float | None = None
    scale: np.ndarray | None = None
    missing_code: int | None = None
    channels: tuple[str, ...] | None = None
    variation: Variation | None = None

    @property
    def lost(self) -> Variation | None:
        """The variation of the values and of what float32 takes from them; None where that is nothing."""
        if self.variation is not None:
            return self.variation
        if self.scale is not None:
            return Variation.of_scaled(self.values, self.scale, self.missing_code)
        return Variation.of(self.values)


@runtime_checkable
class Streams(Protocol):
    """A source that yields recordings one at a time, so that they need not fit in memory together."""

    group_name: str
    by_time: bool  # see `SeriesData`

    def stream(self, scratch: Path) -> Iterator[Recording]:
        """Yield every recording; raises `UserError` with all problems of the files, at the latest after the last.

        Args:
            scratch: folder for what has to be put in order first.
        """

    def describe(self) -> dict[str, Any]:
        """Identity of what `stream` would read, as JSON values; raises `UserError` where files are missing."""

    def test_series(self, data: SeriesData) -> np.ndarray | None:
        """Bool `(R,)`, which recordings are tested on; None for those that `stream` said. Raises `UserError`."""


class Stored(NamedTuple):
    """What `store` wrote.

    Attributes:
        data: the recordings, or labelled series where each has one label as a whole.
        digests: uint64 `(n,)` of labelled series, see `series_digests`; `(f, 2)` of recordings, see `refuse_copies`.
    """

    data: SeriesData
    digests: np.ndarray


def store(recordings: Iterable[Recording], path: Path, prepare: Prepare, *, where: str, group_name: str) -> Stored:
    """Write recordings one after the other, with no more than one of them in memory.

    Args:
        recordings: from a source.
        path: `.npy` file to write the values to.
        prepare: resampling and cropping applied to each.
        where: what they are of, for messages.
        group_name: what a group is.

    Raises:
        UserError: names every problem of the recordings.
    """
    about = _About()
    with open(path, "wb") as file:
        values = ValuesFile(file)
        for recording in recordings:
            about.add(recording, values, prepare)
        values.finish()
        os.fsync(file.fileno())
    return about.finished(path, values, where=where, group_name=group_name)


@dataclass
class _About:
    """All of recordings but their values, which grows with their number alone."""

    problems: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    spans: list[tuple[int, int, int, str]] = field(default_factory=list)
    rates: list[float | None] = field(default_factory=list)
    scales: list[np.ndarray] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    prints: list[np.ndarray] = field(default_factory=list)
    num_prints: int = 0
    one_of: int = copies.ONE_OF
    num_channels: int | None = None
    channels: tuple[str, ...] | None = None
    missing_code: int | None = None
    rounding: Rounding = field(default_factory=Rounding)
    has_missing: bool = False
    all_missing: bool = True

    def add(self, recording: Recording, out: ValuesFile, prepare: Prepare) -> None:
        """Write one recording, or note what is wrong with it."""
        name, number = recording.name, len(self.names)
        channels, length = recording.values.shape
        if not length:
            self.problems.append(f"{name}: it has no time points")
            return
        if self.num_channels is None:
            self.num_channels, self.missing_code = channels, recording.missing_code
            self.channels = recording.channels
        elif channels != self.num_channels:
            self.problems.append(
                f"{name}: it has {channels} channels; expected {self.num_channels}, as in {self.names[0]}"
            )
            return
        try:
            recording = in_order(recording, self.channels)
        except ValueError as error:
            self.problems.append(f"{name}: {error}")
            return
        self.rounding.add(recording.lost, name)
        stored, numbers, scale, ratio, rate = _prepared(recording, prepare, out.dtype)
        if out.dtype not in (None, stored.dtype):
            self.problems.append(
                f"{name}: its values are stored as {stored.dtype}, those of {self.names[0]} as {out.dtype}; expected "
                "one of both (data.prepare.resample_hz=HZ, at the rate that they have, makes float32 of all)"
            )
            return
        if np.isinf(numbers).any():
            self.problems.append(f"{name}: it holds infinite values (or larger than float32 can hold)")
            return
        missing = bool(np.isnan(numbers).any())
        self.has_missing |= missing
        self.all_missing &= missing and bool(np.isnan(numbers).all())
        out.append(stored)
        self.names.append(name)
        self.lengths.append(stored.shape[1])
        self.groups.append(name if recording.group is None else recording.group)
        self.parts.append(recording.part)
        self.labels.append(recording.label)
        self.rates.append(rate)
        if scale is not None:
            self.scales.append(scale)
        for span in recording.spans:
            start, stop = (min(round(point * ratio), stored.shape[1]) for point in (span.start, span.stop))
            if stop > start >= 0:
                self.spans.append((number, start, stop, span.label))
        self.digests.append(hashlib.sha256(np.ascontiguousarray(numbers).data).digest()[:8])
        if recording.label is None:
            self._add_prints(number, copies.fingerprints(numbers))

    def _add_prints(self, number: int, prints: np.ndarray) -> None:
        """Keep the fingerprints of a recording, and fewer of all once there are too many."""
        rows = np.stack([np.full(len(prints), number, np.uint64), prints], axis=1)
        self.prints += copies.thinned([rows], self.one_of)
        self.num_prints += len(self.prints[-1])
        while self.num_prints > copies.MAX_PRINTS:
            self.one_of *= 2
            self.prints = copies.thinned(self.prints, self.one_of)
            self.num_prints = sum(map(len, self.prints))

    def finished(self, path: Path, values: ValuesFile, *, where: str, group_name: str) -> Stored:
        """Check all of it, and open what was written.

        Raises:
            UserError: names every problem.
        """
        problems = list(self.problems)
        if not self.names:
            raise UserError(problems or [f"{where}: there is no recording"])
        if self.all_missing:
            problems.append("all values are missing")
        problems += self._rate_problems()
        problems += self.rounding.problems(self.channels)
        whole = not self.spans and all(label is not None for label in self.labels)
        texts = [str(label) for label in self.labels] if whole else self._all_spans()
        names: list[str] = []
        try:
            names = class_order(label_texts(np.array(texts, dtype=np.str_)))
        except UserError as error:
            problems += error.problems
        if names and (problem := label_problem(np.array(texts, dtype=np.str_))):
            problems.append(problem)
        if len(names) < 2 and not problems:
            known = f"there is one class, {names[0]!r}" if names else "there are no labels"
            problems.append(f"{known}; expected labels of two classes at least, of stretches or of whole recordings")
        if problems:
            raise UserError(p if p.startswith(where) else f"{where}: {p}" for p in problems)
        stored = np.load(path, mmap_mode="r", allow_pickle=False) if values.count else np.empty(0, np.float32)
        codes = {name: code for code, name in enumerate(names)}
        parts = np.array(self.parts)
        distinct = sorted(set(self.groups))
        has_groups = self.groups != self.names or not whole
        positions = {group: code for code, group in enumerate(distinct)}
        more: dict[str, Any] = {}
        if has_groups:
            more["groups"] = np.array([positions[group] for group in self.groups], np.int64)
            more["group_names"], more["group_name"] = tuple(distinct), group_name
        if whole:
            labels = np.array([codes[text] for text in label_texts(np.array(texts, dtype=np.str_)).tolist()], np.int64)
        else:
            labels = np.full(len(self.names), UNKNOWN_LABEL, np.int64)
            rows = [(*span[:3], code) for span, code in zip(self.spans, self._codes(codes), strict=True)]
            more["annotations"] = np.array(rows, np.int64).reshape(-1, 4)
        data = SeriesData(
            values=stored,
            offsets=np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64),
            labels=labels,
            is_test=parts == "test",
            class_names=tuple(names),
            num_channels=self.num_channels or 1,
            has_missing=self.has_missing,
            sampling_rate_hz=self.rates[0],
            header=None if self.channels is None else header_line(self.channels),
            is_validation=parts == "validation" if (parts == "validation").any() else None,
            recording_names=tuple(self.names),
            scale=np.stack(self.scales) if self.scales else None,
            missing_code=self.missing_code,
            **more,
        )
        digests = (
            np.frombuffer(b"".join(self.digests), np.uint64)
            if whole
            else np.concatenate([np.empty((0, 2), np.uint64), *self.prints])
        )
        return Stored(data, digests)

    def _all_spans(self) -> list[str]:
        """Texts of all annotations; a recording with a label as a whole has one over all of it."""
        self.spans += [
            (number, 0, self.lengths[number], label)
            for number, label in enumerate(self.labels)
            if label is not None and not any(span[0] == number for span in self.spans)
        ]
        return [span[3] for span in self.spans]

    def _codes(self, codes: dict[str, int]) -> list[int]:
        texts = label_texts(np.array([span[3] for span in self.spans], dtype=np.str_))
        return [codes[text] for text in texts.tolist()]

    def _rate_problems(self) -> list[str]:
        first = self.rates[0]
        other = [
            position
            for position, rate in enumerate(self.rates)
            if (rate is None) != (first is None) or (rate and first and abs(rate - first) > 1e-3 * first)
        ]
        if not other:
            return []
        shown = ", ".join(f"{self.names[i]} ({_hz(self.rates[i])})" for i in other[:MAX_SHOWN])
        return [
            f"{len(other):,} of {len(self.rates):,} recordings have another sampling rate than {self.names[0]} "
            f"({_hz(first)}): {shown}; expected one rate (data.prepare.resample_hz=HZ brings them to one)"
        ]


def in_order(recording: Recording, channels: tuple[str, ...] | None) -> Recording:
    """A recording whose channels are in the order of their names.

    Raises:
        ValueError: it has others.
    """
    if channels is None or recording.channels is None or recording.channels == channels:
        return recording
    if set(recording.channels) != set(channels):
        raise ValueError(f"it has the channels {', '.join(recording.channels)}; expected {', '.join(channels)}")
    order = [recording.channels.index(name) for name in channels]
    scale = None if recording.scale is None else recording.scale[order]
    variation = None if recording.variation is None else recording.variation.of_channels(order)
    return replace(recording, values=recording.values[order], scale=scale, channels=channels, variation=variation)


def _hz(rate: float | None) -> str:
    return "not known" if rate is None else f"{rate:,.6g} Hz"


def _prepared(
    recording: Recording, prepare: Prepare, dtype: np.dtype | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Fraction | float, float | None]:
    """What is stored of a recording, the numbers that it stands for, its scale, points per old point, and its rate.

    Raises:
        UserError: it can't be prepared as asked.
    """
    values, scale, rate = recording.values, recording.scale, recording.sampling_rate_hz
    as_it_is = prepare == Prepare() and values.dtype in STORED_AS and dtype in (None, values.dtype)
    if as_it_is and values.dtype != np.float32 and scale is None:
        scale = np.tile([1.0, 0.0], (len(values), 1))
    if as_it_is and scale is None:
        return values, values, None, 1, rate
    if scale is not None:
        numbers = unscaled(values, scale, recording.missing_code)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinite, which is reported
            numbers = np.asarray(values, np.float32)
    if as_it_is:
        return values, numbers, scale, 1, rate
    if recording.spans and (prepare.crop_length is not None or prepare.resample_length is not None):
        raise UserError(
            "data.prepare: expected null for crop_length and resample_length, since recordings with annotations are "
            "cut into windows; resample_hz may be set"
        )
    numbers, ratio, rate = prepare.one(numbers, rate)
    return numbers, numbers, None, ratio, rate
