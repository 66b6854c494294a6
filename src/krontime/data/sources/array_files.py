"""Recordings as arrays, a file each: NumPy `.npy`, MATLAB `.mat` (of any version), HDF5, and folders of Zarr."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.assemble import several_labels
from krontime.data.recordings import Recording
from krontime.data.sources.arrays import Layout, read_npy
from krontime.data.sources.long_table import spans_of
from krontime.data.sources.packed import Packed
from krontime.data.sources.recording_files import RecordingFiles
from krontime.data.sources.several_arrays import HDF5, arrays_of_file
from krontime.data.sources.zarr_arrays import SUFFIX as ZARR
from krontime.data.sources.zarr_arrays import arrays_of, listed
from krontime.errors import UserError


class ArrayFilesSource(RecordingFiles):
    """Reads an array of each file; see `RecordingFiles` for `path`, labels and what is tested on.

    Args:
        path, test, test_groups, test_fraction, annotations, pattern, folders, group_name: see `RecordingFiles`.
        key: name of the array in a `.mat` file, HDF5 or Zarr; None for the only one that can be it.
        label_key: name of an array of whole numbers, a label for each point, negative for none; None without one.
        layout: `channels_first` for `(channels, points)`, `channels_last` for `(points, channels)`; None for the one
            with more points than channels.
        sampling_rate_hz: points per second, where known.
        mask_and_scale: whether the attributes of an array of HDF5 or Zarr say what its numbers stand for; see
            `krontime.data.sources.packed`.
    """

    kind = "arrays"
    suffixes = (".npy", ".mat", *HDF5, ZARR)

    def __init__(
        self,
        path: str,
        test: str | None = None,
        test_groups: list[str | int] | None = None,
        test_fraction: float | None = None,
        annotations: str | None = None,
        pattern: str | None = None,
        folders: bool = False,
        group_name: str = "recording",
        key: str | None = None,
        label_key: str | None = None,
        layout: Layout | None = None,
        sampling_rate_hz: float | None = None,
        mask_and_scale: bool = True,
    ) -> None:
        super().__init__(path, test, test_groups, test_fraction, annotations, pattern, folders, group_name)
        self.key = key
        self.label_key = label_key
        self.layout = layout
        self.sampling_rate_hz = sampling_rate_hz
        self.mask_and_scale = mask_and_scale

    def options(self) -> dict[str, Any]:
        """See `RecordingFiles`."""
        return {
            "key": self.key,
            "label_key": self.label_key,
            "layout": self.layout,
            "sampling_rate_hz": self.sampling_rate_hz,
            "mask_and_scale": self.mask_and_scale,
        }

    def is_whole(self, path: Path) -> bool:
        """See `RecordingFiles`."""
        return super().is_whole(path) or (path.suffix.lower() == ZARR and path.is_dir())

    def state(self, file: Path) -> list[Any]:
        """See `RecordingFiles`; a store changes where one of its chunks does."""
        return [listed(file)] if file.is_dir() else super().state(file)

    def read(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """See `RecordingFiles`; the array of labels may be absent."""
        try:
            values, labels = self._arrays(file)
            values = self._channels_first(values)
            spans = []
            if labels is not None:
                if labels.shape != (values.shape[1],) or labels.dtype.kind not in "iufb":
                    several = several_labels(sorted(labels.shape, reverse=True), values.shape[1])
                    raise ValueError(
                        f"data.source.label_key={self.label_key!r}: it has shape {labels.shape}; expected a number for "
                        f"each of {values.shape[1]:,} points{several}"
                    )
                noted = labels[labels >= 0]
                if (broken := noted[~(np.isfinite(noted) & (noted == np.floor(noted)))]).size:
                    raise ValueError(
                        f"data.source.label_key={self.label_key!r}: it holds {broken[0]:g}; expected whole numbers"
                    )
                names, codes = np.unique(noted.astype(np.int64), return_inverse=True)
                at = np.full(len(labels), -1)
                at[labels >= 0] = codes
                spans = spans_of(at, [str(name) for name in names.tolist()])
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{file}: cannot be read as an array of numbers ({error})") from error
        yield Recording(name=file.stem, values=values, spans=spans, sampling_rate_hz=self.sampling_rate_hz)

    def _arrays(self, file: Path) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values and the labels; a file that cannot be opened is a ValueError, as one that is damaged."""
        suffix = file.suffix.lower()
        try:
            if suffix == ".npy":
                return read_npy(file), None
            held = arrays_of(file) if suffix == ZARR else arrays_of_file(file)
        except OSError as error:
            raise ValueError(str(error)) from error
        sizes = {name: array.shape for name, array in held.items()}
        if self.key is not None and self.key not in held:
            raise ValueError(f"data.source.key={self.key!r}: it holds {sizes}")
        candidates = [name for name, array in held.items() if array.size > 1 and name != self.label_key]
        if self.key is None and len(candidates) != 1:
            raise ValueError(f"it holds {sizes}; expected data.source.key=NAME")
        labels = (
            None
            if self.label_key is None or self.label_key not in held
            else np.atleast_1d(self._values(held, self.label_key).squeeze())
        )
        return self._values(held, self.key or candidates[0]), labels

    def _values(self, held: Mapping[str, Packed], name: str) -> np.ndarray:
        array = held[name]
        try:
            return np.asarray(array if self.mask_and_scale else array.stored())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _channels_first(self, values: np.ndarray) -> np.ndarray:
        if values.ndim == 1:
            values = values[None]
        if values.ndim != 2 or values.dtype.kind not in "iufb":
            raise ValueError(f"shape {values.shape}, type {values.dtype}: expected numbers (channels, points)")
        first = values.shape[0] <= values.shape[1] if self.layout is None else self.layout == "channels_first"
        return values if first else values.T
