"""Data sets of the UCR and UEA archives by name: from the aeon package, from a folder, or from Zenodo.

Downloads go to a hidden folder beside the final one, are compared with the size and MD5 that the Zenodo record states,
parsed, and only then renamed: nothing half-finished is ever left under the final name.
"""

import difflib
import importlib.util
import json
import logging
import os
import shutil
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from krontime.data.series import SeriesData
from krontime.data.sources.download import fetch, read_text
from krontime.data.sources.files import file_identity
from krontime.data.sources.labelled import series_of_files
from krontime.data.sources.ts import TsSource, read_ts
from krontime.errors import UserError
from krontime.storage import expanded

log = logging.getLogger(__name__)

RECORDS_URL = "https://zenodo.org/api/records"
"""`RECORDS_URL/RECORD` is a JSON object whose `files` have `key`, `size`, `checksum` and `links.self`.

The environment variable KRONTIME_ZENODO names another server that answers alike, such as a mirror.
"""


class UcrSource:
    """One data set of the archives, with the archive's own train and test split.

    Args:
        name: name in the archive, such as `ACSF1`.
        folder: where downloads are kept, as `FOLDER/NAME/NAME_TRAIN.ts` and `NAME_TEST.ts`.
    """

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        self.folder = expanded(folder)

    def describe(self) -> dict[str, Any]:
        """Identity of the two files, after downloading them where they are nowhere on this machine.

        Raises:
            ValueError: the archives have no such data set, or it cannot be downloaded.
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
        return series_of_files(*self._files(), lambda path, _: read_ts(path), TsSource.labels_hint)

    def _files(self) -> tuple[Path, Path]:
        if not isinstance(self.name, str) or not self.name or Path(self.name).name != self.name:
            raise ValueError(f"name={self.name!r}: expected the name of a UCR or UEA data set, such as ACSF1")
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
        ValueError: there is no such data set, the download failed or is not what the record states.
    """
    from aeon.datasets.tsc_datasets import tsc_zenodo
    from filelock import FileLock

    if name not in tsc_zenodo:
        near = difflib.get_close_matches(name, tsc_zenodo, n=3, cutoff=0.5) or [
            known for known in tsc_zenodo if known.lower() == name.lower()
        ]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"name={name!r}: expected the name of a UCR or UEA data set{hint}")
    target = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            if all(f.is_file() for f in _pair(target, name)):  # another process was faster
                return
            building = folder / f".{name}-download"  # what is in it after a break is not fetched again
            building.mkdir(exist_ok=True)
            try:
                _fetch(tsc_zenodo[name], _pair(building, name))
                for path in _pair(building, name):
                    read_ts(path)
                target.mkdir(exist_ok=True)
                for path in _pair(building, name):
                    path.replace(target / path.name)
                shutil.rmtree(building)
            except (UserError, ValueError, KeyError, TypeError):  # not broken off, but wrong
                shutil.rmtree(building, ignore_errors=True)
                raise
            finally:
                if building.is_dir() and not any(building.iterdir()):
                    building.rmdir()
    except (OSError, HTTPException, UserError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(
            f"name={name!r}: the data set is not on this machine and could not be downloaded "
            f"({type(error).__name__}: {reason}). Place {name}_TRAIN.ts and {name}_TEST.ts in {target} by hand "
            f"(from https://zenodo.org/records/{tsc_zenodo[name]}), or connect to the internet and try again; "
            "ACSF1 needs no download"
        ) from error


def _fetch(record: int, paths: tuple[Path, Path]) -> None:
    """Download the files of a Zenodo record that `paths` are named after, each checked against the record."""
    url = f"{os.environ.get('KRONTIME_ZENODO', RECORDS_URL).rstrip('/')}/{record}"
    files = {file["key"]: file for file in json.loads(read_text(url))["files"]}
    for path in paths:
        if path.name not in files:
            raise UserError(f"record {record} has no file {path.name}")
        stated = files[path.name]
        size, link = stated["size"], stated["links"]["self"]
        kind, _, md5 = stated["checksum"].partition(":")
        if type(size) is not int or size < 0 or kind != "md5":
            raise ValueError(f"record {record} states a size of {size!r} and the checksum {stated['checksum']!r}")
        if urlsplit(link)[:2] != urlsplit(url)[:2]:
            raise ValueError(f"record {record} links {path.name} to another place, {link}")
        if path.exists():
            continue  # whole and checked before the other one broke off
        log.info("Downloading %s (%.1f MB)", path.name, size / 1e6)
        fetch(link, path, size=size, md5=md5)
