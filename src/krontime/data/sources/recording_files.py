"""Sources of recordings: one file or a folder of them to train on, another to test on; how one is read is up to the
format.

Labels of stretches stand in the file, or in a table of annotations beside it; labels of whole recordings stand there
too, or in the names of the files or of their folders.
"""

import glob
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from krontime.data.assemble import A_GROUP_EACH, NO_GROUPS, group_text
from krontime.data.read_ahead import read_ahead
from krontime.data.recordings import Recording
from krontime.data.series import SeriesData
from krontime.data.sources.annotation_table import Annotations, read_annotations
from krontime.data.sources.files import file_identity
from krontime.errors import UserError

MAX_SHOWN = 5


class RecordingFiles(ABC):
    """Reads recordings from files.

    Args:
        path: a file, a folder (all files of the format below it), or a pattern such as `data/*.edf`.
        test: the same for those that are tested on; None where `test_groups` or `test_fraction` say, or nothing is.
        test_groups: groups that are tested on.
        test_fraction: fraction of the groups that is tested on: those whose names come first by their SHA-256.
        annotations: table of labels; see `krontime.data.sources.annotation_table`.
        pattern: regular expression with a named group `label`, and `group` where there are some, that names of files
            match somewhere; None where labels stand elsewhere.
        folders: whether the folder of a file is its label.
        group_name: what a group is (patient, machine), for the record.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    by_time: ClassVar[bool] = False

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
    ) -> None:
        self.path = Path(path).expanduser()
        self.test = None if test is None else Path(test).expanduser()
        self.test_groups = None if test_groups is None else [group_text(str(name)) for name in test_groups]
        self.test_fraction = test_fraction
        self.annotations = None if annotations is None else Path(annotations).expanduser()
        self.pattern = None if pattern is None else _compiled(pattern)
        self.folders = folders
        self.group_name = group_name
        given = [key for key in ("test", "test_groups", "test_fraction") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[1]}={getattr(self, given[1])!r}: expected null where {given[0]} is set")
        if test_fraction is not None and not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction={test_fraction}: expected a number between 0 and 1")

    @abstractmethod
    def read(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """Yield the recordings of one file; raises `UserError` with what is wrong with it.

        Args:
            file: the file.
            scratch: folder for what has to be put in order first.
        """

    def read_new(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """Yield those of a file to be classified, as `read` but for labels and groups, which need not be there."""
        return self.read(file, scratch)

    def reading_bytes(self, files: Sequence[Path]) -> int | None:
        """About the memory that reading any of some files takes, where several are to be read at once; None for one.

        For formats with one recording a file, where reading several at once takes less time.
        """
        return None

    def options(self) -> dict[str, Any]:
        """What changes what is read of a file, as JSON values."""
        return {}

    def files(self, path: Path, key: str) -> list[Path]:
        """The files that a path stands for.

        Raises:
            UserError: there are none.
        """
        if path.is_dir() and not self.is_whole(path):
            every = [file for file in sorted(path.rglob("*")) if self.is_one(file)]
            folders = {file for file in every if file.is_dir()}
            chosen = [file for file in every if folders.isdisjoint(file.parents)]
        elif glob.has_magic(str(path)):
            chosen = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if self.is_whole(Path(name))]
        elif self.is_whole(path):
            chosen = [path]
        else:
            file_identity(path, key)
            chosen = [path]
        if not chosen:
            raise UserError(f"{key}={str(path)!r}: there are no files of type {', '.join(self.suffixes)}")
        return chosen

    def is_one(self, file: Path) -> bool:
        """Whether a file of a folder is a recording."""
        return self.is_whole(file) and file.suffix.lower() in self.suffixes and not file.name.startswith(".")

    def is_whole(self, path: Path) -> bool:
        """Whether a path is a file, or a folder that is read as one."""
        return path.is_file()

    def state(self, file: Path) -> list[Any]:
        """What changes with the content of a file, as JSON values."""
        status = file.stat()
        return [status.st_size, status.st_mtime_ns]

    def describe(self) -> dict[str, Any]:
        """Identity of the files; raises `UserError` where there are none."""
        parts = {"train": self.files(self.path, "data.path")}
        if self.test is not None:
            parts["test"] = self.files(self.test, "data.test")
            if both := set(parts["train"]) & set(parts["test"]):
                raise UserError(
                    f"data.test={str(self.test)!r}: {len(both)} of its files are trained on too, such as "
                    f"{min(both)}; expected others"
                )
        listed = [[part, str(file.resolve()), *self.state(file)] for part, files in parts.items() for file in files]
        table = None if self.annotations is None else file_identity(self.annotations, "data.source.annotations")
        return {
            "name": self.path.stem,
            "kind": self.kind,
            "files": hashlib.sha256(json.dumps(listed).encode("utf-8", "surrogatepass")).hexdigest(),
            "annotations": table,
            "pattern": None if self.pattern is None else self.pattern.pattern,
            "folders": self.folders,
            "group_name": self.group_name,
            **self.options(),
        }

    def stream(self, scratch: Path) -> Iterator[Recording]:
        """Yield every recording, with its labels.

        Raises:
            UserError: after the last, with what is wrong with any of the files, or a group is on both sides.
        """

        def read(file: Path) -> Iterable[Recording]:
            recordings = self.read(file, scratch)
            return recordings if num_bytes is None else list(recordings)

        table = None if self.annotations is None else read_annotations(self.annotations)
        problems: list[str] = []
        sides: dict[str, set[str]] = {}
        parts: list[tuple[Literal["train", "test"], Path | None, str]] = [
            ("train", self.path, "data.path"),
            ("test", self.test, "data.test"),
        ]
        for part, path, key in parts:
            files = [] if path is None else self.files(path, key)
            num_bytes = self.reading_bytes(files)
            for file, recordings in read_ahead("reading recordings", files, read, num_bytes=num_bytes):
                try:
                    for recording in recordings():
                        labelled = self._labelled(recording, file, table)
                        sides.setdefault(labelled.group or group_text(labelled.name), set()).add(part)
                        yield replace(labelled, part=part)
                except UserError as error:
                    problems += [p if str(file) in p else f"{file}: {p}" for p in error.problems]
        if shared := sorted(group for group, on in sides.items() if len(on) > 1):
            more = f", ... ({len(shared)} in all)" if len(shared) > MAX_SHOWN else ""
            problems.append(
                f"{self.group_name} {', '.join(map(repr, shared[:MAX_SHOWN]))}{more} is trained on and tested on: "
                "expected each on one side"
            )
        if table is not None and (unused := table.unused()):
            problems.append(
                f"{self.annotations}: {len(unused)} of its recordings are no files read, such as {unused[0]!r}"
            )
        if problems:
            raise UserError(problems)

    def test_series(self, data: SeriesData) -> np.ndarray | None:
        """Bool `(R,)`, which recordings belong to the groups that are tested on; None for the files of `test`.

        Raises:
            UserError: there is no such group, or nothing is left to train on.
        """
        if self.test_groups is None and self.test_fraction is None:
            return None
        given = data.group_names if data.groups is not None else data.recording_names
        assert given is not None
        names = [group_text(name) for name in given]
        groups = data.groups if data.groups is not None else np.arange(len(names))
        if self.test_groups is not None:
            if strangers := [name for name in self.test_groups if name not in names]:
                raise UserError(
                    f"data.source.test_groups={self.test_groups}: there is no {self.group_name} {strangers[0]!r}; "
                    f"expected some of {', '.join(names[:20])}"
                )
            chosen = [names.index(name) for name in self.test_groups]
        else:
            assert self.test_fraction is not None
            order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
            chosen = order[: max(1, round(self.test_fraction * len(names)))]
        if len(chosen) >= len(names):
            raise UserError(
                f"data.source: all {len(names)} groups ({self.group_name}) are tested on; expected some to train on"
            )
        return np.isin(groups, chosen)

    def _labelled(self, recording: Recording, file: Path, table: Annotations | None) -> Recording:
        """The recording with the labels that stand outside of its file."""
        if table is not None:
            recording = table.annotated(recording, file, self.path if self.path.is_dir() else file.parent)
        if self.folders:
            recording = replace(recording, label=file.parent.name)
        if self.pattern is not None:
            match = self.pattern.search(file.name)
            if match is None:
                raise UserError(f"its name does not match data.source.pattern={self.pattern.pattern!r}")
            named = match.groupdict()
            recording = replace(recording, label=named["label"], group=named.get("group", recording.group))
        if recording.group is None:
            return recording
        if recording.group.strip() in NO_GROUPS:
            raise UserError(f"{recording.name}: its group is missing; {A_GROUP_EACH}")
        return replace(recording, group=group_text(recording.group))


def _compiled(pattern: str) -> re.Pattern[str]:
    """Raises `ValueError` where it is no regular expression with a group `label`."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern={pattern!r}: expected a regular expression ({error})") from error
    if not {"label"} <= set(compiled.groupindex) <= {"label", "group"}:
        raise ValueError(
            f"pattern={pattern!r}: expected a group (?P<label>...), and (?P<group>...) where there are some"
        )
    return compiled
