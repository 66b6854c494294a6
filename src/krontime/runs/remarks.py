"""Keeps what a table says and no record does: notes on runs that were merged, and jobs without a record."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from krontime.errors import UserError
from krontime.storage import is_unfinished, replacing

REMARKS = "remarks.json"
_FOLDER = re.compile(r"(?P<data>.+)/(?P<model>[^/]+)/seed(?P<seed>-?\d+)-[0-9a-f]{12}")

Variant = tuple[str, ...]
"""The model's name, or the values of the config keys that distinguish variants."""


@dataclass(frozen=True)
class Note:
    """A remark on the table, a data set (`data`) or an entry of one (all three).

    Attributes:
        is_lost: whether it is about runs of which publishing keeps the newest alone.
    """

    text: str
    data: str | None = None
    protocol: int | None = None
    variant: Variant | None = None
    is_lost: bool = False


@dataclass(frozen=True)
class Unrecorded:
    """A job that a sweep lists and that left no record.

    Attributes:
        folder: `DATA/MODEL/seedS-HASH`.
        max_train: how many training series it was limited to; None for all.
        is_failed: whether it was begun, and refused or failed; else it was not run, or cut off.
    """

    folder: str
    max_train: int | None = None
    is_failed: bool = False

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self._part("data")

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._part("model")

    @property
    def most_to_train(self) -> float:
        """Number of training series that it was limited to; infinity for no limit."""
        return math.inf if self.max_train is None else self.max_train

    def _part(self, name: str) -> str:
        match = _FOLDER.fullmatch(self.folder)
        assert match is not None
        return match[name]


@dataclass(frozen=True)
class Remarks:
    """Notes, and jobs without a record."""

    notes: tuple[Note, ...] = ()
    unrecorded: tuple[Unrecorded, ...] = ()

    def write(self, folder: Path) -> None:
        """Write to `remarks.json` in a folder, where there is something to say."""
        from pydantic import TypeAdapter

        if self != Remarks():
            with replacing(folder / REMARKS) as temporary:
                temporary.write_bytes(TypeAdapter(Remarks).dump_json(self, indent=2) + b"\n")


def is_job_folder(folder: str) -> bool:
    """Say whether a folder is named `DATA/MODEL/seedS-HASH`."""
    return _FOLDER.fullmatch(folder) is not None


def read_remarks(roots: Iterable[Path]) -> Remarks:
    """Read what `Remarks.write` left below some folders, each remark once.

    Raises:
        UserError: a file is damaged.
    """
    from pydantic import TypeAdapter, ValidationError

    notes: list[Note] = []
    unrecorded: list[Unrecorded] = []
    for path in sorted({path.resolve() for root in roots for path in root.rglob(REMARKS)}):
        if is_unfinished(path.parent.name):
            continue
        try:
            parsed = TypeAdapter(Remarks).validate_json(path.read_bytes())
            if wrong := [job.folder for job in parsed.unrecorded if not is_job_folder(job.folder)]:
                raise ValueError(f"folder: {wrong[0]!r}")
        except (OSError, ValidationError, ValueError) as error:
            raise UserError(f"{path}: not a readable file of remarks ({str(error).splitlines()[0]})") from error
        notes += parsed.notes
        unrecorded += parsed.unrecorded
    return Remarks(tuple(dict.fromkeys(notes)), tuple(dict.fromkeys(unrecorded)))
