"""WFDB records, the format of PhysioNet: a `.hea` file, its signals, and annotations of rhythms or of beats."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from krontime.data.recordings import Recording, Span
from krontime.data.sources.files import library_of
from krontime.data.sources.recording_files import RecordingFiles
from krontime.errors import UserError

MISSING = {
    **dict.fromkeys(("16", "61", "160", "516"), -(2**15)),
    **dict.fromkeys(("80", "508"), -(2**7)),
    **dict.fromkeys(("310", "311"), -(2**9)),
    "212": -(2**11),
}
"""What stands for a missing value in formats of at most 16 bits, which are stored as they are."""

WIDE = ("8", "24", "32", "524")
"""Formats of more, of which the library makes physical values, with NaN where one is missing."""

CODE = -(2**15)
"""What is stored for it."""

NO_BEATS = frozenset("+~|[]!x()ptu`'^s T*D=\"@")
"""Symbols of annotations that mark no beat."""


class WfdbSource(RecordingFiles):
    """Reads WFDB records; see `RecordingFiles` for `path` and what is tested on.

    Args:
        path, test, test_groups, test_fraction, annotations, pattern, group_name: see `RecordingFiles`.
        annotator: ending of the files of annotations.
        labels: `rhythm` (each holds from where it is noted to where the next is) or `beats` (one point each).
        channels: names of the signals, in this order; None for all.
    """

    kind = "wfdb"
    suffixes = (".hea",)

    def __init__(
        self,
        path: str,
        test: str | None = None,
        test_groups: list[str | int] | None = None,
        test_fraction: float | None = None,
        annotations: str | None = None,
        pattern: str | None = None,
        group_name: str = "recording",
        annotator: str = "atr",
        labels: Literal["rhythm", "beats"] = "rhythm",
        channels: list[str] | None = None,
    ) -> None:
        super().__init__(path, test, test_groups, test_fraction, annotations, pattern, group_name=group_name)
        self.annotator = annotator
        self.labels = labels
        self.channels = channels

    def options(self) -> dict[str, Any]:
        """See `RecordingFiles`; the signals' and annotations' files count too."""
        return {"annotator": self.annotator, "labels": self.labels, "channels": self.channels}

    def read(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """See `RecordingFiles`; a record need not have annotations."""
        wfdb = library_of("wfdb", "wfdb", needed_by="data=wfdb")
        name = str(file.with_suffix(""))
        try:
            is_physical, has_frames = _how(wfdb.rdheader(name, rd_segments=True), self.channels)
            record = wfdb.rdrecord(
                name,
                physical=is_physical,
                return_res=64 if is_physical else 16,
                smooth_frames=not has_frames,
                channel_names=self.channels,
            )
            if not record.n_sig:
                raise ValueError("it has no signals" if not self.channels else f"it has no {', '.join(self.channels)}")
            noted = wfdb.rdann(name, self.annotator) if self._has_annotations(file) else None
        except Exception as error:  # of any kind, bare ones too
            raise UserError(f"{file}: cannot be read as a WFDB record ({error})") from error
        spans = [] if noted is None else self._spans(noted, record)
        names = tuple(record.sig_name) if len(set(record.sig_name)) == len(record.sig_name) else None
        if is_physical:
            values = _means_of_frames(record) if has_frames else np.ascontiguousarray(record.p_signal.T)
            yield Recording(file.stem, values, spans, sampling_rate_hz=float(record.fs), channels=names)
            return
        values = np.ascontiguousarray(record.d_signal.T, dtype=np.int16)
        for channel, kind in zip(values, record.fmt, strict=True):
            channel[channel == MISSING[kind]] = CODE
        gain, baseline = np.array(record.adc_gain, float), np.array(record.baseline, float)
        yield Recording(
            name=file.stem,
            values=values,
            spans=spans,
            sampling_rate_hz=float(record.fs),
            scale=np.stack([1 / gain, -baseline / gain], axis=1),
            missing_code=CODE,
            channels=names,
        )

    def _has_annotations(self, file: Path) -> bool:
        return file.with_suffix(f".{self.annotator}").is_file()

    def _spans(self, noted: Any, record: Any) -> list[Span]:
        ratio = record.fs / noted.fs if noted.fs else 1.0  # annotations may count at a rate of their own
        places = [round(int(place) * ratio) for place in noted.sample]
        if self.labels == "beats":
            return [
                Span(place, place + 1, symbol)
                for place, symbol in zip(places, noted.symbol, strict=True)
                if symbol not in NO_BEATS
            ]
        rhythms = [
            (place, text.strip("(\0 "))
            for place, text in zip(places, noted.aux_note, strict=True)
            if text.startswith("(")
        ]
        ends = [place for place, _ in rhythms[1:]] + [record.sig_len]
        return [Span(start, stop, label) for (start, label), stop in zip(rhythms, ends, strict=True)]


def _how(header: Any, channels: list[str] | None) -> tuple[bool, bool]:
    """Whether a record has to be read as physical values, and whether a signal of it has several samples in a frame.

    The former where a signal is of more than 16 bits, has several samples in a frame (the library's own mean of them
    takes the code of a missing one for a number), or segments write their signals in several ways.

    Args:
        header: of the record, with those of its segments.
        channels: names of the signals that are read; None for all.

    Raises:
        ValueError: a format is not known, or segments are in several units.
    """
    parts = [header] if not hasattr(header, "segments") else header.segments
    parts = [one for one in parts if one is not None and one.sig_name and one.sig_len != 0]
    signals = [
        signal
        for one in parts
        for signal in zip(one.sig_name, one.fmt, one.units, one.samps_per_frame, strict=True)
        if channels is None or signal[0] in channels
    ]
    formats = {kind for _, kind, _, _ in signals}
    if strange := sorted(formats.difference(MISSING, WIDE)):
        known = ", ".join(sorted((*MISSING, *WIDE), key=int))
        raise ValueError(f"its signals are in format {', '.join(strange)}; expected one of {known}")
    units = {(name, unit) for name, _, unit, _ in signals}
    if hasattr(header, "segments") and len({name for name, _ in units}) < len(units):
        raise ValueError(f"its segments have several units, {', '.join(sorted({unit for _, unit in units}))}")
    ways = {(*one.sig_name, *one.fmt, *one.adc_gain, *one.baseline) for one in parts}
    has_frames = any(count > 1 for *_, count in signals)
    return has_frames or len(ways) > 1 or not formats.isdisjoint(WIDE), has_frames


def _means_of_frames(record: Any) -> np.ndarray:
    """The signals `(C, L)` of a record, a point for each frame: the mean of its samples that are there."""
    values = np.full((record.n_sig, record.sig_len), np.nan)
    for channel, samples in enumerate(record.e_p_signal):
        frames = samples.reshape(record.sig_len, -1)
        is_there = ~np.isnan(frames)
        counts = is_there.sum(axis=1)
        np.divide(np.where(is_there, frames, 0.0).sum(axis=1), counts, out=values[channel], where=counts > 0)
    return values
