"""Data sets of the UCR and UEA archives by name: from the aeon package, from a folder, or from Zenodo.

Downloads go to a temporary folder beside the final one, are compared with the size and MD5 that the Zenodo record
states, parsed, and only then renamed: nothing half-finished is ever left under the final name.
"""

import difflib
import hashlib
import importlib.util
import json
import logging
import shutil
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from krontime.data.series import SeriesData
from krontime.data.sources.files import file_identity
from krontime.data.sources.labelled import series_of_files
from krontime.data.sources.ts import TsSource, read_ts
from krontime.errors import UserError

log = logging.getLogger(__name__)

RECORD_URL = "https://zenodo.org/api/records/{record}"
"""Metadata of one record: a JSON object whose `files` have `key`, `size`, `checksum` and `links.self`."""

TIMEOUT_S = 60
CHUNK_BYTES = 1 << 20


class UcrSource:
    """One data set of the archives, with the archive's own train and test split.

    Args:
        name: name in the archive, such as `ACSF1`.
        folder: where downloads are kept, as `FOLDER/NAME/NAME_TRAIN.ts` and `NAME_TEST.ts`.
    """

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        self.folder = Path(folder).expanduser()

    def describe(self) -> dict[str, Any]:
        """Identity of the two files, after downloading them where they are nowhere on this machine.

        Raises:
            UserError: the archives have no such data set, or it cannot be downloaded.
        """
        train, test = self._files()
        return {
            "name": self.name,
            "kind": "ucr",
            "train": file_identity(train, "data.name"),
            "test": file_identity(test, "data.name"),
        }

    def load(self) -> SeriesData:
        """Parse both files; raises `UserError` with all their problems."""
        return series_of_files(*self._files(), read_ts, TsSource.labels_hint)

    def _files(self) -> tuple[Path, Path]:
        if not isinstance(self.name, str) or not self.name or Path(self.name).name != self.name:
            raise UserError(f"data.name={self.name!r}: expected the name of a UCR or UEA data set, such as ACSF1")
        for folder in (_bundled_folder(), self.folder):
            files = _pair(folder / self.name, self.name)
            if all(f.is_file() for f in files):
                return files
        _download(self.name, self.folder)
        return _pair(self.folder / self.name, self.name)


def _pair(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}_TRAIN.ts", folder / f"{name}_TEST.ts"


def _bundled_folder() -> Path:
    """Where the aeon package keeps the data sets it ships with, found without importing it (which takes seconds)."""
    spec = importlib.util.find_spec("aeon")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data"


def _download(name: str, folder: Path) -> None:
    """Fetch, check and parse both files, then move them to `folder / name`.

    Raises:
        UserError: there is no such data set, the download failed or is not what the record states.
    """
    from aeon.datasets.tsc_datasets import tsc_zenodo
    from filelock import FileLock

    if name not in tsc_zenodo:
        near = difflib.get_close_matches(name, tsc_zenodo, n=3, cutoff=0.5) or [
            known for known in tsc_zenodo if known.lower() == name.lower()
        ]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UserError(f"data.name={name!r}: expected the name of a UCR or UEA data set{hint}")
    target = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            if all(f.is_file() for f in _pair(target, name)):  # another process was faster
                return
            building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
            try:
                _fetch(tsc_zenodo[name], [f.name for f in _pair(target, name)], building)
                for path in _pair(building, name):
                    read_ts(path)
                target.mkdir(exist_ok=True)
                for path in _pair(building, name):
                    path.replace(target / path.name)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    except (OSError, HTTPException, UserError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise UserError(
            f"data.name={name!r}: the data set is not on this machine and could not be downloaded "
            f"({type(error).__name__}: {reason}). Place {name}_TRAIN.ts and {name}_TEST.ts in {target} by hand "
            f"(from https://zenodo.org/records/{tsc_zenodo[name]}), or connect to the internet and try again; "
            "ACSF1 needs no download"
        ) from error


def _fetch(record: int, names: list[str], folder: Path) -> None:
    """Download `names` of a Zenodo record into `folder`, each checked against the size and MD5 of the record."""
    with urllib.request.urlopen(RECORD_URL.format(record=record), timeout=TIMEOUT_S) as response:
        files = {file["key"]: file for file in json.load(response)["files"]}
    for name in names:
        if name not in files:
            raise UserError(f"record {record} has no file {name}")
        stated = files[name]
        log.info("Downloading %s (%.1f MB)", name, stated["size"] / 1e6)
        digest, size = hashlib.md5(usedforsecurity=False), 0
        with (
            urllib.request.urlopen(stated["links"]["self"], timeout=TIMEOUT_S) as response,
            open(folder / name, "wb") as file,
        ):
            while chunk := response.read(CHUNK_BYTES):
                size += len(chunk)
                if size > stated["size"]:
                    break
                digest.update(chunk)
                file.write(chunk)
        if size != stated["size"] or f"md5:{digest.hexdigest()}" != stated["checksum"]:
            raise UserError(f"{name} arrived damaged: it is not the {stated['size']} bytes that the record states")
