"""EDF and BDF files, with the annotations of EDF+."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.recordings import Recording, Span
from krontime.data.sources.files import library_of
from krontime.data.sources.recording_files import RecordingFiles
from krontime.errors import UserError


class EdfSource(RecordingFiles):
    """Reads EDF files; see `RecordingFiles` for `path` and what is tested on.

    Args:
        path, test, test_groups, test_fraction, annotations, pattern, group_name: see `RecordingFiles`.
        channels: names of the signals, in this order; None for all, which then need one sampling rate.
        ignore: annotations that are no labels.
    """

    kind = "edf"
    suffixes = (".edf", ".bdf")

    def __init__(
        self,
        path: str,
        test: str | None = None,
        test_groups: list[str | int] | None = None,
        test_fraction: float | None = None,
        annotations: str | None = None,
        pattern: str | None = None,
        group_name: str = "recording",
        channels: list[str] | None = None,
        ignore: list[str] | None = None,
    ) -> None:
        super().__init__(path, test, test_groups, test_fraction, annotations, pattern, group_name=group_name)
        self.channels = channels
        self.ignore = frozenset(ignore or ())

    def options(self) -> dict[str, Any]:
        """See `RecordingFiles`."""
        return {"channels": self.channels, "ignore": sorted(self.ignore)}

    def read(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """See `RecordingFiles`; a file need not have annotations."""
        pyedflib = library_of("edf", "pyedflib", needed_by="data=edf")
        try:
            reader = pyedflib.EdfReader(str(file))
        except (OSError, ValueError, FileNotFoundError) as error:
            raise UserError(f"{file}: cannot be read as EDF ({error})") from error
        with reader:
            names = [name.strip() for name in reader.getSignalLabels()]
            chosen = list(range(len(names)))
            if self.channels is not None:
                if strangers := [name for name in self.channels if name not in names]:
                    raise UserError(f"{file}: it has no signal {strangers[0]!r}; expected some of {', '.join(names)}")
                if twice := [name for name in self.channels if names.count(name) > 1]:
                    raise UserError(f"{file}: {names.count(twice[0])} signals are called {twice[0]!r}; expected one")
                chosen = [names.index(name) for name in self.channels]
            rates = {reader.getSampleFrequency(number) for number in chosen}
            if len(rates) != 1:
                listed = ", ".join(f"{names[n]} {reader.getSampleFrequency(n):g} Hz" for n in chosen[:20])
                raise UserError(
                    f"{file}: its signals have several sampling rates ({listed}); expected those of one "
                    "(data.source.channels=[NAME,...])"
                )
            rate = float(rates.pop())
            digital = np.stack([reader.readSignal(number, digital=True) for number in chosen])
            scale = np.array([_scale(reader, number) for number in chosen])
            spans = self._spans(reader, rate)
        is_narrow = np.iinfo(np.int16).min <= digital.min() and digital.max() <= np.iinfo(np.int16).max
        yield Recording(
            name=file.stem,
            values=digital.astype(np.int16) if is_narrow else (digital * scale[:, :1] + scale[:, 1:]),
            spans=spans,
            sampling_rate_hz=rate,
            scale=scale if is_narrow else None,
            channels=tuple(names[number] for number in chosen) if len(set(names)) == len(names) else None,
        )

    def _spans(self, reader: Any, rate: float) -> list[Span]:
        """Annotations; one without a duration holds for one point."""
        onsets, durations, texts = reader.readAnnotations()
        return [
            Span(round(onset * rate), max(round((onset + max(duration, 0)) * rate), round(onset * rate) + 1), text)
            for onset, duration, text in zip(onsets, durations, map(str.strip, map(str, texts)), strict=True)
            if text not in self.ignore and onset >= 0
        ]


def _scale(reader: Any, number: int) -> tuple[float, float]:
    """Factor and summand that make physical values out of digital ones."""
    low, high = reader.getDigitalMinimum(number), reader.getDigitalMaximum(number)
    bottom, top = reader.getPhysicalMinimum(number), reader.getPhysicalMaximum(number)
    factor = (top - bottom) / (high - low)
    return factor, bottom - low * factor
