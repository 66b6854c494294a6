"""What sources that read files share: a file's identity for the cache key, and the message where it is absent."""

import difflib
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from krontime.console import progress
from krontime.errors import UserError


@contextmanager
def lines_of(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a text file in UTF-8, with the progress that is made in reading it."""

    def counted() -> Iterator[str]:
        for line in file:
            yield line
            step(len(line))

    with open(path, encoding="utf-8-sig") as file, progress(f"bytes of {path.name}", path.stat().st_size) as step:
        yield counted()


def library_of(extra: str, name: str, *, needed_by: str) -> Any:
    """Import the library of an extra of this package.

    Args:
        extra: name of the extra.
        name: module to import.
        needed_by: what is read with it, for the message.

    Raises:
        UserError: the library, or what it is linked with, is not installed.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: the package is there, and not the C library below it
        raise UserError(f"{needed_by} needs the extra {extra}: expected pip install 'krontime[{extra}]'") from error


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, linked folders included, each folder once, in the order of the operating system."""
    visited = set()
    for top, folders, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(top)
        if here in visited:  # a link to a folder around it
            folders.clear()
            continue
        visited.add(here)
        for name in files:
            if (file := Path(top, name)).is_file():
                yield file


def file_identity(path: Path, key: str) -> dict[str, Any]:
    """Absolute path, size and modification time of a file that must be there.

    Args:
        path: the file.
        key: config key that names it, for the message.

    Raises:
        UserError: names the key, the path, files of similar name, and how the data folder is set.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        siblings = [p.name for p in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.4)
        hint = f" (in that folder: {', '.join(near)})" if near else ""
        raise UserError(
            f"{key}={str(path)!r}: {what}{hint}; expected a file ({key}=FILE; the folder of the named data sets is set "
            "by paths.data=FOLDER or the environment variable KRONTIME_DATA)"
        )
    status = path.stat()
    return {"path": str(path.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
