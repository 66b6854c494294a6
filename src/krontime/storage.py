"""Names of the files in a run folder, addresses, and how a file or a folder is written whole or not at all."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

CONFIG = "config.yaml"
RECORD = "record.json"
PREDICTIONS = "test_predictions.parquet"
VALIDATION_PREDICTIONS = "validation_predictions.parquet"
HELD_OUT = "held_out_predictions.parquet"
RECORDINGS = "recordings.csv"
SEGMENTS = "segments.csv"
RECORDINGS_PLOT = "recordings.png"
CONFUSION_MATRIX = "confusion_matrix.png"
LEARNING_CURVES = "learning_curves.png"
ATTENTION = "attention.png"

_LONGEST_NAME = 255 - len(".." + uuid4().hex)
"""Bytes that file systems give a name, without those that `replacing` adds."""


def expanded(path: str | Path) -> Path:
    """A path with the home folder for a `~` in front; as it is where nobody knows that home."""
    return Path(os.path.expanduser(path))


def is_address(value: object) -> bool:
    """Say whether a value is the address of a file or folder in a store, such as `s3://bucket/set.npz`."""
    return isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]+://", value) is not None


def secret_problem(key: str, value: object) -> str | None:
    """A line where a value is an address with a login or, as signed ones have, a query; it repeats neither."""
    if not is_address(value):
        return None
    scheme, _, rest = str(value).partition("://")
    login, at, _ = rest.partition("/")[0].rpartition("@")
    place, query, _ = rest.partition("?")
    is_http = scheme in ("http", "https")
    if not (":" in login or (is_http and (login or query))):
        return None
    shown = f"{scheme}://{place.removeprefix(login + at)}"
    return (
        f"{key}={shown!r}, with a login or a query: expected an address without, since runs keep and print it; "
        "credentials are those of fsspec (docs/data.md)"
    )


def writing_problem(path: Path) -> str | None:
    """Why a file or folder can't be made at `path`, or written to where it is a folder; None where it can.

    Looked at before what is to be written there is computed. Nothing is left behind.
    """
    path = expanded(path).absolute()
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        return os.strerror(errno.ENAMETOOLONG)
    folder = path
    try:
        while not folder.exists():
            if folder.is_symlink():
                return f"{folder} is a link to nothing"
            if folder == folder.parent:
                return f"there is no {folder}"
            folder = folder.parent
        if folder.is_file() and folder == path:
            folder = folder.parent
        if not folder.is_dir():
            return f"{folder} is no folder"
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder}: {error.strerror or error}"


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it becomes `path` at once when the block ends well.

    A reader therefore sees the old file or the whole new one, also when the process is killed half-way or the power
    fails. The folder of `path` is made where it is missing; when the block raises, `path` stays as it was.

    Args:
        path: the file to write.
        keep: new name of the file that is there now, in the same folder; None to drop it. Where the process is killed
            between the two renamings, there is only this one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` to fill; it takes the place of `path` when the block ends well.

    What lay in `path` is removed last, so that a process killed at any moment leaves all of the old folder or all of
    the new one, at worst under a hidden name beside `path`. When the block raises, `path` stays as it was. Where `path`
    is a link, this is about what it leads to.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, before = (path.with_name(f".{path.name}.{uuid4().hex}") for _ in range(2))
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.replace(before)
        try:
            temporary.replace(path)
        except BaseException:
            if before.exists():
                before.replace(path)
            raise
        _sync_folder(path.parent)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_unfinished(name: str) -> bool:
    """Whether a file or folder is one that `replacing` or `replacing_folder` writes to or takes away."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}", name) is not None


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed in `replacing` left in a folder; no other may be writing there."""
    for path in folder.glob(".*"):
        if is_unfinished(path.name):
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make renamings last through a power cut, where the operating system opens folders at all."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    except OSError:  # a file system that does not sync folders
        pass
    finally:
        os.close(descriptor)
