"""A folder of recordings: a subfolder for each class, or `train` and `test` folders of such subfolders.

Files are decoded by libsndfile (WAV, FLAC, Ogg, MP3, AIFF and more). Values lie between -1 and 1.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from krontime.data.assemble import labelled_data
from krontime.data.memory import require_memory
from krontime.data.series import SeriesData
from krontime.errors import UserError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".caf", ".opus", ".w64")
PARTS = ("train", "test")
BLOCK_FRAMES = 1 << 16
MAX_TOLD = 10


class Recording(NamedTuple):
    """One decoded file: `(C, L)` float32."""

    values: np.ndarray
    sampling_rate_hz: int


class AudioSource:
    """Reads a folder of recordings; see the module's text for how it is laid out.

    Args:
        path: the folder.
        mono: average the channels of each recording; else all recordings need the same number.
    """

    def __init__(self, path: str, mono: bool = True) -> None:
        self.path = Path(path).expanduser()
        self.mono = mono

    def describe(self) -> dict[str, Any]:
        """Identity of the files; raises `UserError` where the folder is missing or holds no classes of recordings."""
        found = []
        for file, label, is_test in self._files():
            status = file.stat()
            found.append([str(file.relative_to(self.path)), label, is_test, status.st_size, status.st_mtime_ns])
        listed = hashlib.sha256(json.dumps(found).encode("utf-8", "surrogatepass")).hexdigest()
        return {
            "name": self.path.name,
            "kind": "audio",
            "folder": str(self.path.resolve()),
            "files": listed,
            "mono": self.mono,
        }

    def load(self) -> SeriesData:
        """Decode every file.

        Raises:
            UserError: the library is not installed, or names what is wrong with the files.
        """
        files = self._files()
        problems: list[str] = []
        recordings: list[Recording] = []
        for file, _, _ in files:
            try:
                recordings.append(read_recording(file, mono=self.mono))
            except ValueError as error:
                problems.append(f"{file}: {error}")
        for what, found in (
            ("channels", [one.values.shape[0] for one in recordings]),
            ("points per second", [one.sampling_rate_hz for one in recordings]),
        ):
            if not problems and len(set(found)) > 1:
                other = next(i for i, value in enumerate(found) if value != found[0])
                problems.append(
                    f"{files[other][0]}: {found[other]} {what}; expected {found[0]}, as in {files[0][0].name}"
                )
        if problems:
            more = [f"{self.path}: ... ({len(problems)} in all)"] if len(problems) > MAX_TOLD else []
            raise UserError([*problems[:MAX_TOLD], *more])

        return labelled_data(
            [one.values for one in recordings],
            np.array([label for _, label, _ in files], dtype=np.str_),
            np.array([is_test for _, _, is_test in files]),
            where=str(self.path),
            sampling_rate_hz=float(recordings[0].sampling_rate_hz),
        )

    def _files(self) -> list[tuple[Path, str, bool]]:
        """Every recording with its class and whether it is for testing, in the order of their names."""
        if not self.path.is_dir():
            what = "is a file" if self.path.exists() else "there is no such folder"
            raise UserError(f"data.path={str(self.path)!r}: {what}; expected a folder with a subfolder for each class")
        parts = [self.path / part for part in PARTS]
        roots = [(root, root == parts[1]) for root in parts] if all(map(Path.is_dir, parts)) else [(self.path, False)]
        found = [
            (file, folder.name, is_test)
            for root, is_test in roots
            for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
        ]
        if not found:
            raise UserError(
                f"data.path={str(self.path)!r}: there are no recordings in its subfolders; expected a subfolder for "
                f"each class (or train and test folders of such), with files of type {', '.join(SUFFIXES)}"
            )
        return found


def read_recording(path: Path, *, mono: bool) -> Recording:
    """Decode one file, a block at a time: a header may declare any length.

    Raises:
        UserError: the library is not installed.
        ValueError: the file is none that it decodes, or does not fit in memory.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there, and no libsndfile
        raise UserError("data=audio needs the extra audio: expected pip install 'krontime[audio]'") from error
    blocks: list[np.ndarray] = []
    try:
        with soundfile.SoundFile(path) as file:
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                require_memory(block.nbytes * (len(blocks) + 2))  # the blocks so far may have to be joined
                blocks.append(block.mean(axis=1, keepdims=True) if mono else block)
            rate = file.samplerate
    except (OSError, RuntimeError, TypeError, MemoryError) as error:  # soundfile's own is a RuntimeError
        raise ValueError(f"cannot be decoded ({error})") from error
    if not blocks:
        raise ValueError("it has no time points")
    return Recording(np.ascontiguousarray(np.concatenate(blocks).T), rate)
