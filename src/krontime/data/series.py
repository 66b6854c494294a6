"""What every data source yields (`SeriesData`), what a model needs to know of it (`SeriesSpec`), and a batch.

Shape letters: B batch, C channels, L time points, n series, R recordings, m annotations.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from krontime.data.memory import mapped_file_bytes

UNKNOWN_LABEL = -1
"""Label of a series whose class is not given (new files at prediction time)."""


@dataclass(frozen=True)
class SeriesSpec:
    """The sizes that flow from the data into the model when it is built.

    Attributes:
        num_channels: C.
        length: longest series, in time points.
        num_classes: number of classes in the training split.
        class_names: one name per class, in label order.
        sampling_rate_hz: points per second, where the source knows it.
        min_length: shortest series, in time points; None where it is not known.
        given_lengths: (shortest, longest) as the series were given, before they were cut to `crop_length` or resampled
            to `resample_length`; None where neither was done.
        header: names of the columns that the points came from, as a line of CSV; None where they had no names.
        num_series: series that a closed form is fitted to, where it is known.
    """

    num_channels: int
    length: int
    num_classes: int
    class_names: tuple[str, ...]
    sampling_rate_hz: float | None = None
    min_length: int | None = None
    given_lengths: tuple[int, int] | None = None
    header: str | None = None
    num_series: int | None = None

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "SeriesSpec":
        """From `to_plain`, which JSON and checkpoints hold with lists or tuples."""
        given = plain.get("given_lengths")
        return cls(
            **{
                **plain,
                "class_names": tuple(plain["class_names"]),
                "given_lengths": None if given is None else (int(given[0]), int(given[1])),
            }
        )

    def to_plain(self) -> dict[str, Any]:
        """The attributes in JSON's own types."""
        given = self.given_lengths
        return {
            **asdict(self),
            "class_names": list(self.class_names),
            "given_lengths": None if given is None else list(given),
        }


class _MappedFile(NamedTuple):
    """Where the values of a pickled `SeriesData` lie."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str


class Windows(NamedTuple):
    """Series that are windows of recordings: an index over what is stored, of which nothing is copied.

    Attributes:
        recording: int64 `(n,)`, position of each window's recording.
        start: int64 `(n,)`, its first time point in the recording.
        length: int64 `(n,)`, its time points.
    """

    recording: np.ndarray
    start: np.ndarray
    length: np.ndarray


RELEASED_BYTES = 1 << 26
"""Bytes read of a memory map after which its pages are given back to the system, which keeps them while it has room."""

MAPPED_BYTES = 1 << 27
"""Bytes by which what is mapped of files may have grown before that; the system maps up to 2 MiB around a read."""

_CHECKED_BYTES = 1 << 20
"""Bytes read of a memory map after which it is looked at how much that has become."""

_CHUNK_BYTES = 1 << 22


class Pages:
    """Counts what was read of a memory map, and lets go of its pages now and then.

    Else a process that passes over a data set would be said to hold all of it, and be ended where memory is limited.
    """

    def __init__(self) -> None:
        self._num_bytes = self._unchecked = 0
        self._mapped_bytes = mapped_file_bytes()

    def read(self, values: np.ndarray, num_bytes: int) -> None:
        """Note that `num_bytes` of `values` are read now."""
        self._num_bytes += num_bytes
        self._unchecked += num_bytes
        if self._unchecked < _CHECKED_BYTES:
            return
        self._unchecked = 0
        if self._num_bytes > RELEASED_BYTES or mapped_file_bytes() - self._mapped_bytes > MAPPED_BYTES:
            if isinstance(values.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                values.base.madvise(mmap.MADV_DONTNEED)
            self._num_bytes, self._mapped_bytes = 0, mapped_file_bytes()


def chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Stretches of an array along its first axis, one after the other, of a memory map without holding all of it."""
    pages, step = Pages(), max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        chunk = array[start : start + step]
        pages.read(array, chunk.nbytes)
        yield chunk


@dataclass(frozen=True)
class SeriesData:
    """Labelled series of one data set, as flat arrays that may be memory maps.

    Series are stored one by one, or they are `windows` of recordings, which are stored so. Recordings with
    `annotations` are no series until they are cut into windows.

    Attributes:
        values: 1-D, float32, or small integers with their `scale`: each series or recording is one contiguous
            `(C, L_i)` block, one after the other. NaN marks a missing value.
        offsets: int64 `(n + 1)` or `(R + 1)`, in time points: block i spans `offsets[i]:offsets[i + 1]`.
        labels: int64 `(n,)`, index into `class_names`, or `UNKNOWN_LABEL`.
        is_test: bool `(n,)`, true where a series belongs to the test split.
        class_names: one name per label.
        num_channels: C, the same for all series.
        has_missing: whether any value is NaN.
        groups: int64 `(n,)` codes of what must not straddle a split (speaker, patient), or None.
        group_name: what a group is, for the record.
        by_time: whether training, validation and test are periods that follow each other, the same for all recordings,
            each of which is of one period and ends with it.
        group_names: one name per code of `groups`, where known.
        sampling_rate_hz: points per second, where known.
        rates_hz: float64 `(n,)`, points per second of each series where they differ; else None.
        is_validation: bool `(n,)`, true where the source puts a series aside for validation; None where it does not.
        given_lengths: int64 `(n,)`, points before the series were cut to `crop_length` or resampled to
            `resample_length`; None where neither was done.
        header: names of the columns that the points came from, as a line of CSV; None where they had no names.
        read_length: points of each series that are read, of longer ones a part alone. None for all.
        read_from: which part that is, see `kept_from`; of windows always their start.
        windows: which stretches of recordings the series are; None where they are stored one by one.
        recording_names: of the blocks that are stored (files, recordings), where they have names; None else.
        annotations: int64 `(m, 4)` rows of recording, start, stop (in time points) and label; None for series.
        scale: float64 `(R, C, 2)`, factor and summand that make the numbers of a block out of stored integers; None
            for float32.
        missing_code: the integer that stands for a missing value; None where there is none.
        pages: see `Pages`.
        notes: what the reader left out, took for granted or put in order, for the line that says what was read.
        digests: uint64 `(n,)` of stored series, see `series_digests`; `(f, 2)` of recordings, see `refuse_copies`; None
            where they are not known, and of windows.
        sha256: checksum of the content (values, labels, split, names), wherever it is stored; None outside the cache.
    """

    values: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    class_names: tuple[str, ...]
    num_channels: int
    has_missing: bool
    groups: np.ndarray | None = None
    group_name: str | None = None
    by_time: bool | None = None
    group_names: tuple[str, ...] | None = None
    sampling_rate_hz: float | None = None
    rates_hz: np.ndarray | None = None
    is_validation: np.ndarray | None = None
    given_lengths: np.ndarray | None = None
    header: str | None = None
    read_length: int | None = None
    read_from: str = "start"
    windows: Windows | None = None
    recording_names: tuple[str, ...] | None = None
    annotations: np.ndarray | None = None
    scale: np.ndarray | None = None
    missing_code: int | None = None
    notes: tuple[str, ...] = ()
    digests: np.ndarray | None = field(default=None, repr=False, compare=False)
    sha256: str | None = None
    pages: Pages = field(default_factory=Pages, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        """A pickled memory map would carry all of its values along; another process reopens the file instead."""
        state = dict(self.__dict__)
        if isinstance(self.values, np.memmap):
            state["values"] = _MappedFile(
                str(self.values.filename), self.values.offset, self.values.shape, self.values.dtype.str
            )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(mapped := state["values"], _MappedFile):
            values = np.memmap(mapped.path, mapped.dtype, mode="r", offset=mapped.offset, shape=mapped.shape)
            state = {**state, "values": values}
        self.__dict__.update(state)

    @property
    def lengths(self) -> np.ndarray:
        """int64 `(n,)`: time points of each series, as far as they are read."""
        lengths = np.diff(self.offsets) if self.windows is None else self.windows.length
        return lengths if self.read_length is None else np.minimum(lengths, self.read_length)

    @property
    def is_training(self) -> np.ndarray:
        """Bool `(n,)`: true for series of neither the test split nor the source's validation part."""
        return ~self.is_test if self.is_validation is None else ~(self.is_test | self.is_validation)

    @property
    def equal_length(self) -> bool:
        """Whether all series have the same number of time points."""
        lengths = self.lengths
        return bool((lengths == lengths[0]).all())

    @property
    def spec(self) -> SeriesSpec:
        """The sizes a model is built from: those of the series that are not of the test split, where there are any."""
        known = ~self.is_test if not self.is_test.all() else self.is_test
        given = None if self.given_lengths is None else self.given_lengths[known]
        return SeriesSpec(
            num_channels=self.num_channels,
            length=int(self.lengths[known].max()),
            num_classes=len(self.class_names),
            class_names=self.class_names,
            sampling_rate_hz=self.sampling_rate_hz,
            min_length=int(self.lengths[known].min()),
            given_lengths=None if given is None else (int(given.min()), int(given.max())),
            header=self.header,
        )

    def series(self, index: int) -> np.ndarray:
        """Series `index` as `(C, L_i)` float32, a view where the values are a memory map of such."""
        if self.windows is None:
            if self.read_length is None:
                return self.stretch(index)
            length = int(self.offsets[index + 1] - self.offsets[index])
            start = kept_from(self.read_from, max(0, length - self.read_length))
            return self.stretch(index, start, start + self.read_length)
        start = int(self.windows.start[index])
        return self.stretch(int(self.windows.recording[index]), start, start + int(self.lengths[index]))

    def name_of(self, index: int) -> str | None:
        """Name of the file or recording that a series comes from, with where it begins there; None where unknown."""
        if self.recording_names is None:
            return None
        if self.windows is None:
            return self.recording_names[index]
        start = int(self.windows.start[index])
        return f"{self.recording_names[int(self.windows.recording[index])]} from point {start:,}"

    def stretch(self, block: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The points from `start` to `stop` of one stored series or recording, as `(C, stop - start)` float32."""
        first, last = (int(self.offsets[block + i]) * self.num_channels for i in (0, 1))
        stored = self.values[first:last].reshape(self.num_channels, -1)[:, start:stop]
        self.pages.read(self.values, stored.nbytes)
        return stored if self.scale is None else unscaled(stored, self.scale[block], self.missing_code)

    @property
    def recording(self) -> np.ndarray:
        """int64 `(n,)`: position of the stored block that each series is, or is a window of."""
        return np.arange(len(self)) if self.windows is None else self.windows.recording

    def period_of(self, indices: np.ndarray) -> np.ndarray:
        """Return int64 codes of the times that windows at `indices` begin in, of which a recording has 50 at most.

        Each is two windows long or more. Windows that overlap say little more than one does; by these they count as few
        as they are. Where data is split by time, a time is one for all recordings, counted back from their ends.
        """
        assert self.windows is not None
        recording, start, length = (column[indices] for column in self.windows)
        points = np.diff(self.offsets)[recording]
        if self.by_time:
            return (points - start) // max(2 * int(length.max()), -(-int(points.max()) // 50))
        return recording * 50 + start // np.maximum(2 * length, -(-points // 50))

    def needs_mask(self, indices: np.ndarray) -> bool:
        """Whether a batch of these series may hold what is not observed: missing values, or padding."""
        lengths = self.lengths[indices]
        if (lengths != lengths[:1]).any():
            return True
        return self.has_missing and any(bool(np.isnan(self.series(index)).any()) for index in indices)

    def observed(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Return whether each of the series, or of those at `indices`, has any value, bool."""
        chosen = np.arange(len(self)) if indices is None else indices
        if not self.has_missing:
            return np.ones(len(chosen), bool)
        return np.array([not np.isnan(self.series(index)).all() for index in chosen.tolist()], bool)


def kept_from(part: str, spare: int) -> int:
    """First point of the part of a series that is kept (`start`, `center` or `end`), where `spare` points are not."""
    return {"start": 0, "center": spare // 2, "end": spare}[part]


def unscaled(stored: np.ndarray, scale: np.ndarray, missing_code: int | None) -> np.ndarray:
    """Stored integers `(..., C, L)` as the numbers that they stand for, float32; `scale` is `(..., C, 2)`."""
    values = stored.astype(np.float32)
    values *= scale[..., :1].astype(np.float32)
    values += scale[..., 1:].astype(np.float32)
    if missing_code is not None:
        values[stored == missing_code] = np.nan
    return values


HeldOut = Mapping[int, torch.Tensor]
"""By position in the data, logarithms `(K,)` of probabilities from a closed form that was fitted without the series."""


class SeriesBatch(NamedTuple):
    """One batch as the data module yields it.

    Attributes:
        x: `(B, C, L)` float32, raw values with 0 where missing or past a series' end; L is the longest in the batch.
        mask: `(B, C, L)` bool, true where observed; None when every value of the data set is observed.
        y: `(B,)` int64 labels.
        index: `(B,)` int64, position of each series in its `SeriesData`.
        held_out: `(B, K)` logarithms of these series' probabilities from a closed form that was fitted without them;
            None where there are none.
        period: `(B,)` int64, see `SeriesData.period_of`; None where the series are no windows.
    """

    x: torch.Tensor
    mask: torch.Tensor | None
    y: torch.Tensor
    index: torch.Tensor  # type: ignore[assignment]  # hides tuple.index, which a batch has no use for
    held_out: torch.Tensor | None = None
    period: torch.Tensor | None = None
