"""A user's own series in aeon's `.ts` text format: one file to train on, one to test on."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from krontime.data.assemble import checked, encode_labels, flatten
from krontime.data.series import SeriesData
from krontime.data.sources.files import file_identity
from krontime.errors import UserError


class TsSource:
    """Reads a training file and, if there is one, a test file.

    Args:
        train: `.ts` file with class labels.
        test: the same for testing; None for a data set without a test split.
    """

    def __init__(self, train: str, test: str | None = None) -> None:
        self.train = Path(train).expanduser()
        self.test = None if test is None else Path(test).expanduser()

    def describe(self) -> dict[str, Any]:
        """Identity of the files; raises `UserError` where one is missing, or both are one."""
        problems: list[str] = []
        files = {}
        for key, path in (("train", self.train), ("test", self.test)):
            try:
                files[key] = None if path is None else file_identity(path, f"data.{key}")
            except UserError as error:
                problems += error.problems
        if problems:
            raise UserError(problems)
        if self.test is not None and self.test.samefile(self.train):
            raise UserError(
                f"data.test={str(self.test)!r}: expected another file than data.train; its series would be trained on"
            )
        return {"name": self.train.stem, "kind": "ts", **files}

    def load(self) -> SeriesData:
        """Read both files.

        Raises:
            UserError: names all problems of the files.
        """
        return series_from_ts(self.train, self.test)


class TsFile(NamedTuple):
    """One parsed file: `(C, L_i)` float64 arrays, and text labels where it has any."""

    series: list[np.ndarray]
    labels: np.ndarray | None


def series_from_ts(train: Path, test: Path | None) -> SeriesData:
    """Labelled series of one or two `.ts` files; raises `UserError` with the problems of both."""
    parts: list[TsFile] = []
    problems: list[str] = []
    for path in (train, test):
        if path is None:
            continue
        try:
            parts.append(parse_ts(path))
            if parts[-1].labels is None:
                problems.append(f"{path}: it has no class labels; expected a header line such as @classLabel true a b")
        except UserError as error:
            problems += error.problems
    if not problems and len({part.series[0].shape[0] for part in parts}) > 1:
        counts = " and ".join(str(part.series[0].shape[0]) for part in parts)
        problems.append(f"{train} and {test}: they have {counts} channels; expected the same number")
    if problems:
        raise UserError(problems)

    is_test = np.repeat(np.arange(len(parts)) == 1, [len(part.series) for part in parts])
    series = [s for part in parts for s in part.series]
    where = str(train) if test is None else f"{train} and {test.name}"
    try:
        labels = encode_labels(np.concatenate([part.labels for part in parts if part.labels is not None]), is_test)
    except UserError as error:
        raise UserError(f"{where}: {p}" for p in error.problems) from error
    values, offsets = flatten(series)
    data = SeriesData(
        values=values,
        offsets=offsets,
        labels=labels.codes,
        is_test=is_test,
        class_names=labels.class_names,
        num_channels=series[0].shape[0],
        has_missing=bool(np.isnan(values).any()),
    )
    return checked(data, where)


def parse_ts(path: Path) -> TsFile:
    """Parse one `.ts` file with aeon, after refusing what aeon misreads.

    aeon drops the minus signs of files with time stamps and turns labels into lower case; the former are refused and
    the latter restored from the header.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    try:
        header = _header(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error
    if "data" not in header:
        raise UserError(f"{path}: not a .ts file: it has no line @data")
    if header.get("timestamps", "").lower() == "true":
        raise UserError(
            f"{path}: files with time stamps are not supported; expected @timestamps false and evenly spaced values, "
            "with NaN or ? where one is missing"
        )
    if header.get("targetlabel", "").lower() == "true":
        raise UserError(f"{path}: it holds numbers to predict (@targetLabel true); expected classes (@classLabel true)")

    from aeon.datasets import load_from_ts_file

    try:
        series, labels, meta = load_from_ts_file(str(path), return_meta_data=True)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path}: cannot be read as a .ts file ({error})") from error
    if len(series) == 0:
        raise UserError(f"{path}: there is no series after the line @data")
    if not meta["classlabel"] or len(labels) == 0:
        return TsFile(list(series), None)
    spelled = {_as_aeon_reads(name): name for name in header.get("classlabel", "").split()[1:]}
    return TsFile(list(series), np.array([spelled.get(str(label), str(label)) for label in labels]))


def _as_aeon_reads(label: str) -> str:
    return label.lower().replace("nan", "NaN").replace("?", "NaN")


def _header(path: Path) -> dict[str, str]:
    """Tags before the data, names in lower case, values as written."""
    header = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if match := re.match(r"@(\w+)\s*(.*)", line.strip()):
                header[match[1].lower()] = match[2].strip()
                if match[1].lower() == "data":
                    break
    return header
