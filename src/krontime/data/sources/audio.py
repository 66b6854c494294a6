"""A folder of recordings: a subfolder for each class, or folders of splits (train, test) of such subfolders.

Files are decoded by libsndfile (WAV, FLAC, Ogg, MP3, AIFF and more). Values lie between -1 and 1.
"""

import contextlib
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from krontime.data.assemble import flatten, labelled_data
from krontime.data.memory import require_memory
from krontime.data.read_ahead import read_ahead
from krontime.data.rounding import Rounding, Variation
from krontime.data.series import SeriesData
from krontime.data.sources.files import library_of
from krontime.data.sources.folders import Found, Layout, Part, lay_out
from krontime.errors import UserError
from krontime.storage import expanded

log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".caf", ".opus", ".w64")
LOSSY = (".ogg", ".mp3", ".opus")
BLOCK_FRAMES = 1 << 16

CHECKED_BYTES = 1 << 24
"""Decoded bytes of a file after which the memory left is asked for, which takes as long as decoding a block."""

UNKNOWN_BYTES = 0x7FFF0000
"""At least what a program declares that writes to a pipe, before it knows how much comes."""

MAX_EXAMPLES = 3


class Recording(NamedTuple):
    """One decoded file: `(C, L)` float32, and the variation of its samples where they were float64."""

    values: np.ndarray
    sampling_rate_hz: int
    variation: Variation | None = None


class AudioSource:
    """Reads a folder of recordings; see the module's text for how it is laid out.

    Args:
        path: the folder.
        mono: average the channels of each recording; else all recordings need the same number.
        splits: whether the folders at the top are splits and not classes; None to go by their names.
        train_folder: name of the folder of the training split, where its name does not say so.
        validation_folder: the same for validation.
        test_folder: the same for testing.
        ignore: folders at the top to leave out.
        on_error: what to do about files that cannot be decoded: `refuse` or `skip`.
    """

    def __init__(
        self,
        path: str,
        mono: bool = True,
        splits: bool | None = None,
        train_folder: str | None = None,
        validation_folder: str | None = None,
        test_folder: str | None = None,
        ignore: list[str] | None = None,
        on_error: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        self.path = expanded(path)
        self.mono = mono
        self.splits = splits
        folders: dict[Part, str | None] = {"train": train_folder, "validation": validation_folder, "test": test_folder}
        self.folders: dict[Part, str] = {part: str(name) for part, name in folders.items() if name is not None}
        self.ignore = tuple(str(name) for name in ignore or ())
        self.on_error = on_error

    def describe(self) -> dict[str, Any]:
        """Identity of the files; raises `UserError` where the folder is missing or holds no classes of recordings."""
        listed = []
        layout = self._layout()
        for file, label, part in layout.recordings:
            status = file.stat()
            listed.append([str(file.relative_to(self.path)), label, part, status.st_size, status.st_mtime_ns])
        files = json.dumps([listed, layout.notes]).encode("utf-8", "surrogatepass")
        return {
            "name": self.path.name,
            "kind": "audio",
            "folder": str(self.path.resolve()),
            "files": hashlib.sha256(files).hexdigest(),
            "mono": self.mono,
            "on_error": self.on_error,
        }

    def load(self) -> SeriesData:
        """Decode every file into memory.

        Raises:
            UserError: the library is not installed, or names what is wrong with the files.
        """
        return self.load_into(None, mixed_rates=False)

    def load_into(self, scratch: Path | None, *, mixed_rates: bool) -> SeriesData:
        """Decode every file, with few of them in memory at a time.

        Args:
            scratch: see `flatten`.
            mixed_rates: whether the rates may differ, and are then in `rates_hz`.

        Raises:
            UserError: the library is not installed, or names what is wrong with the files.
        """
        layout = self._layout()
        kept: list[Found] = []
        channels: list[int] = []
        rates: list[int] = []
        broken: dict[Path, str] = {}
        rounding = Rounding()

        num_bytes = decoding_bytes([one.file for one in layout.recordings])

        def decode(one: Found) -> Recording:
            return read_recording(one.file, mono=self.mono)

        def decoded() -> Iterator[np.ndarray]:
            for one, read in read_ahead("decoding recordings", layout.recordings, decode, num_bytes=num_bytes):
                try:
                    recording = read()
                except UserError:
                    raise
                except ValueError as error:
                    broken[one.file] = str(error)
                    continue
                kept.append(one)
                channels.append(recording.values.shape[0])
                rates.append(recording.sampling_rate_hz)
                rounding.add(recording.variation, one.file.name)
                yield recording.values

        flat = flatten(decoded(), scratch)
        num_files = len(layout.recordings)
        if broken and (self.on_error != "skip" or not kept):
            ways = "" if self.on_error == "skip" else "; data.source.on_error=skip leaves them out"
            problems = [f"{file}: {reason}" for file, reason in broken.items()]
            problems[-1] += f" ({len(broken)} of {num_files} recordings cannot be read{ways})"
            raise UserError(problems)
        notes = list(layout.notes)
        if broken:
            names = ", ".join(str(file.relative_to(self.path)) for file in broken)
            notes.append(f"left out: {len(broken)} of {num_files} files that cannot be decoded ({names})")
        problems = _differing(kept, channels, "channels", "data.source.mono=true")
        if not mixed_rates:
            problems += _differing(kept, rates, "points per second", f"data.prepare.resample_hz={min(rates)}")
        if problems:
            raise UserError(problems)
        parts = np.array([one.part for one in kept])
        return labelled_data(
            flat,
            np.array([one.label for one in kept], dtype=np.str_),
            parts == "test",
            num_channels=channels[0],
            where=str(self.path),
            rounding=rounding,
            sampling_rate_hz=float(rates[0]) if len(set(rates)) == 1 else None,
            rates_hz=np.array(rates, float) if len(set(rates)) > 1 else None,
            is_validation=parts == "validation" if (parts == "validation").any() else None,
            notes=tuple(notes),
            recording_names=tuple(_shown(one.file.relative_to(self.path)) for one in kept),
        )

    def _layout(self) -> Layout:
        """Every recording with its class and its split, in the order of their names."""
        if not self.path.is_dir():
            what = "is a file" if self.path.exists() else "there is no such folder"
            raise UserError(f"data.path={str(self.path)!r}: {what}; expected a folder with a subfolder for each class")
        layout = lay_out(self.path, SUFFIXES, splits=self.splits, named=self.folders, ignore=self.ignore)
        if not layout.recordings:
            raise UserError(
                f"data.path={str(self.path)!r}: there are no recordings in its subfolders; expected a subfolder for "
                f"each class (or train and test folders of such), with files of type {', '.join(SUFFIXES)}"
                + "".join(f"; {note}" for note in layout.notes)
            )
        return layout


def _shown(path: Path) -> str:
    """A path as text that can be written; bytes of its name that are no UTF-8 are replaced."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _differing(files: Sequence[Found], values: Sequence[int], what: str, way: str) -> list[str]:
    """A line for each value that not all files have in common with the most frequent one, which is named with them."""
    counts = Counter(values).most_common()
    if len(counts) < 2:
        return []
    usual = counts[0][0] if counts[0][1] > counts[1][1] else values[0]
    like = files[values.index(usual)].file.name
    lines = []
    for value, count in counts:
        if value == usual:
            continue
        examples = [files[i].file for i, other in enumerate(values) if other == value][:MAX_EXAMPLES]
        more = f" (and {count - 1} more files)" if count > 1 else ""
        lines.append(f"{examples[0]}: {value} {what}; expected {usual}, as in {like}{more}; {way} brings them together")
    return lines


def decoding_bytes(files: Sequence[Path]) -> int:
    """About the memory that decoding any of some files takes, by what files of their size usually hold."""
    sizes = [0]
    for file in files:
        with contextlib.suppress(OSError):  # gone since it was listed, as reading it says
            sizes.append(file.stat().st_size * (64 if file.suffix.lower() in LOSSY else 12))
    return max(sizes)


def read_recording(path: Path | BinaryIO, *, mono: bool) -> Recording:
    """Decode one file, by its path or opened, a block at a time: a header may declare any length.

    Raises:
        UserError: the library is not installed.
        ValueError: the file is none that it decodes, or does not fit in memory.
    """
    soundfile = library_of("audio", "soundfile", needed_by="data=audio")
    blocks: list[np.ndarray] = []
    num_bytes = checked_bytes = 0
    variation: Variation | None = None
    try:
        with soundfile.SoundFile(path) as file:
            _refuse_cut(file.extra_info)
            kind = "float64" if file.subtype == "DOUBLE" else "float32"  # which holds 24 bits of all others
            while len(block := file.read(BLOCK_FRAMES, dtype=kind, always_2d=True)):
                block = block.mean(axis=1, keepdims=True) if mono else block
                if (here := Variation.of(block.T)) is not None:
                    variation = here if variation is None else variation | here
                with np.errstate(over="ignore"):  # beyond float32: infinite, which is reported elsewhere
                    block = block.astype(np.float32, copy=False)
                num_bytes += block.nbytes
                if num_bytes >= checked_bytes + CHECKED_BYTES:
                    require_memory(num_bytes + CHECKED_BYTES)  # the blocks so far have to be joined
                    checked_bytes = num_bytes
                blocks.append(block)
            rate = file.samplerate
    except (OSError, RuntimeError, TypeError, MemoryError) as error:  # soundfile's own is a RuntimeError
        raise ValueError(f"cannot be decoded ({error})") from error
    if not blocks:
        raise ValueError("it has no time points")
    return Recording(np.ascontiguousarray(np.concatenate(blocks).T), rate, variation)


def _refuse_cut(noted: str) -> None:
    """Refuse a file that ends before its header says, which libsndfile notes and reads as far as it goes.

    The header of the whole file and that of its samples are too large by one and the same number then; other wrong
    headers, as some programs write, are let be.

    Raises:
        ValueError: it was cut short.
    """
    wrong = r"^{} *: (\d+) \(should be (\d+)\)"
    whole, samples = (re.search(wrong.format(name), noted, re.MULTILINE) for name in ("RIFF", "data"))
    if whole is None or samples is None:
        return
    declared, held = int(samples[1]), int(samples[2])
    if int(whole[1]) - int(whole[2]) == declared - held > 0 and declared < UNKNOWN_BYTES:
        raise ValueError(f"its header declares {declared:,} bytes of samples, and {held:,} follow: it was cut short")
