"""Audio files of any length: a class each by folder, file name or table, or annotated stretches."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from krontime.data.recordings import Recording
from krontime.data.sources import audio
from krontime.data.sources.recording_files import RecordingFiles
from krontime.errors import UserError


class AudioRecordingsSource(RecordingFiles):
    """Reads audio files; see `RecordingFiles` for `path`, labels and what is tested on.

    Args:
        path, test, test_groups, test_fraction, annotations, pattern, folders, group_name: see `RecordingFiles`.
        mono: average the channels of each recording; else all need the same number.
    """

    kind = "audio_recordings"
    suffixes = audio.SUFFIXES

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
        mono: bool = True,
    ) -> None:
        super().__init__(path, test, test_groups, test_fraction, annotations, pattern, folders, group_name)
        self.mono = mono

    def options(self) -> dict[str, Any]:
        """See `RecordingFiles`."""
        return {"mono": self.mono}

    def reading_bytes(self, files: Sequence[Path]) -> int:
        """See `RecordingFiles`."""
        return audio.decoding_bytes(files)

    def read(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """See `RecordingFiles`."""
        try:
            recording = audio.read_recording(file, mono=self.mono)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{file}: {error}") from error
        yield Recording(
            name=file.stem,
            values=recording.values,
            sampling_rate_hz=float(recording.sampling_rate_hz),
            variation=recording.variation,
        )
