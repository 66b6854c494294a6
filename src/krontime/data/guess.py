"""What a file or folder holds, as far as its names say: which choice of `data` reads it, and with which keys."""

import itertools
import os
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from krontime.data.sources.audio import SUFFIXES as RECORDINGS
from krontime.data.sources.columns import is_even
from krontime.data.sources.files import files_below
from krontime.data.sources.table_body import fields_of
from krontime.data.sources.text import is_number
from krontime.errors import UserError

READABLE = (
    "a folder of recordings with a subfolder for each class, an .npz container, .csv, .tsv or .ts tables, or the UCR "
    "archive's NAME_TRAIN.tsv"
)
_AS_SERIES = "numpy.savez(NEW, X=..., y=..., split=...) makes a container of series that is read"
_RECORDS = f"data=wfdb reads records with annotations; {_AS_SERIES}"
_ARRAYS = f"data=arrays reads recordings with labels; {_AS_SERIES}"
OTHERS = {
    ".parquet": "data=long_table reads one with a row for each time point; pandas.read_parquet(FILE).to_csv(NEW, "
    "index=False) makes a table of series that is read",
    ".arrow": f"data=huggingface reads data sets of Hugging Face's datasets; {_AS_SERIES}",
    ".npy": _ARRAYS,
    ".mat": _ARRAYS,
    ".h5": _ARRAYS,
    ".zarr": _ARRAYS,
    ".edf": f"data=edf reads recordings with annotations; {_AS_SERIES}",
    ".hea": _RECORDS,
    ".dat": _RECORDS,
    ".xlsx": "saved as .csv it is read",
}
SINGLE = (".npz", ".ts", ".csv", ".tsv")
"""Endings of files that hold a data set each."""

_TO_SPACES = str.maketrans(",\t", "  ")

MAX_SEEN = 20_000
MAX_ROWS = 20


def guess(path: Path, key: str = "data.path") -> dict[str, str]:
    """The choice of `data` and its keys that read a file or folder.

    Args:
        path: the file or folder.
        key: config key that names it, for messages.

    Raises:
        UserError: it is not there, or nothing reads it.
    """
    suffix = path.suffix.lower()
    if os.path.isdir(path) and suffix != ".zarr":
        return _of_folder(path, key)
    if not os.path.exists(path):  # which a name too long does not, where `Path.exists` raises
        raise UserError(f"{key}={str(path)!r}: there is no such file or folder; expected {READABLE}")
    if suffix == ".npz":
        return {"data": "npz", "data.path": str(path)}
    if suffix == ".ts":
        return _pair("ts", path)
    if suffix in (".csv", ".tsv", ".txt"):
        if _is_ucr_text(path):
            return _pair("ucr_text", path)
        return _pair("csv", path)
    if suffix in RECORDINGS:
        raise UserError(f"{key}={str(path)!r}: is one recording; expected a folder with a subfolder for each class")
    more = f": {OTHERS[suffix]}" if suffix in OTHERS else ""
    raise UserError(
        f"{key}={str(path)!r}: files of type {suffix or 'without an ending'} are not read{more}; expected {READABLE}"
    )


def guess_of_address(address: str, key: str) -> dict[str, str]:
    """The choice of `data` and its keys that read a file of a store, by its name alone.

    Raises:
        UserError: the name does not say.
    """
    suffix = PurePosixPath(address).suffix.lower()
    if suffix == ".npz":
        return {"data": "npz", "data.path": address}
    if suffix in (".ts", ".csv", ".tsv"):
        return {"data": "ts" if suffix == ".ts" else "csv", "data.train": address}
    raise UserError(f"{key}={address!r}: expected data=KIND beside it, since this name does not say what is read")


def _of_folder(path: Path, key: str) -> dict[str, str]:
    files = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    for suffix in (".ts", ".tsv", ".txt", ".csv", ".npz"):
        trains = [file for file in files if file.suffix.lower() == suffix and _is_train(file)]
        if len(trains) == 1 and suffix != ".npz":
            return guess(trains[0], key)
    below = [file for file in itertools.islice(files_below(path), MAX_SEEN) if not file.name.startswith(".")]
    kinds = Counter(file.suffix.lower() for file in below if file.parent != path)
    if any(kinds[suffix] for suffix in RECORDINGS):
        return {"data": "audio", "data.path": str(path)}
    single = [file for file in files if file.suffix.lower() in SINGLE]
    if single:
        names = ", ".join(f"{key}={file}" for file in single[:5])
        raise UserError(f"{key}={str(path)!r}: is a folder; expected one of its files, such as {names}")
    if inner := sorted({file.parent for file in below if file.suffix.lower() in SINGLE}):
        names = ", ".join(f"{key}={folder}" for folder in inner[:5])
        raise UserError(f"{key}={str(path)!r}: its files are in folders below; expected one of them, such as {names}")
    stores = {folder for file in below for folder in file.parents if folder.suffix.lower() == ".zarr"}
    kinds.update(file.suffix.lower() for file in (*files, *stores))
    held = ", ".join(f"{count} {kind or 'without an ending'}" for kind, count in kinds.most_common(5)) or "no files"
    hint = next((f" ({kind}: {OTHERS[kind]})" for kind, _ in kinds.most_common() if kind in OTHERS), "")
    if any(kinds[suffix] for suffix in RECORDINGS):
        hint = "; recordings belong in a subfolder for each class"
    raise UserError(f"{key}={str(path)!r}: the folder has {held}{hint}; expected {READABLE}")


def _is_train(file: Path) -> bool:
    return file.stem.lower() in ("train", "training") or file.stem.lower().endswith(("_train", "-train"))


def _pair(data: str, train: Path) -> dict[str, str]:
    """A training file, and the test file beside it, which is called alike."""
    options = {"data": data, "data.train": str(train)}
    stem = train.stem
    if _is_train(train):
        cut = stem.lower().rindex("train")
        beside = {file.stem.lower(): file for file in train.parent.glob(f"*{train.suffix}")}
        if (test := beside.get(f"{stem[:cut]}test".lower())) is not None:
            options["data.test"] = str(test)
    return options


def _is_ucr_text(path: Path) -> bool:
    """Whether rows are numbers without a header, the first of each being one of few whole numbers."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            rows = (_row(line) for line in itertools.islice(file, MAX_ROWS) if line.strip())
            row = next(rows, np.empty(0))
            first = [row[0], *(other[0] for other in rows)]
    except (OSError, ValueError, IndexError):
        return False
    if len(first) < 2 or is_even(row):  # numbers for names
        return False
    whole = all(value == value and value == int(value) for value in first if abs(value) < 1e9)
    return whole and len(set(first)) <= max(2, len(first) // 2)


def _row(line: str) -> np.ndarray:
    """The numbers of a line; raises `ValueError` where it holds anything else, or one number alone."""
    values = np.fromiter(map(_value, fields_of(line.translate(_TO_SPACES), " ")), float)
    if len(values) < 2:
        raise ValueError(f"{line!r:.40}: expected several numbers")
    return values


def _value(field: str) -> float:
    if not is_number(field) and field.lower() != "nan":
        raise ValueError(f"{field!r:.40}: expected a number")
    return float(field)
