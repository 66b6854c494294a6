"""From what a file holds (raw labels, a list of arrays) to a checked `SeriesData`; shared by all sources."""

import csv
import hashlib
import io
import itertools
import re
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.rounding import Rounding
from krontime.data.series import UNKNOWN_LABEL, SeriesData, chunks
from krontime.data.sources.text import is_number
from krontime.data.values_file import ValuesFile
from krontime.errors import Problems, UserError

NO_LABELS = ("", "nan", "NaN", "NaT", "<NA>")
"""What NumPy and pandas write for a label that is missing; NA and None, which are names too, are classes."""

NO_GROUPS = (*NO_LABELS, "None", "NA", "N/A", "null", "NULL", "?")
"""What files write for a group that is missing; where series of both splits had none, they would share one."""

A_GROUP_EACH = "expected one for each, a name of its own for what shares none"


@dataclass(frozen=True)
class Labels:
    """Labels as class numbers.

    Attributes:
        codes: int64 `(n,)`, index into `class_names`.
        class_names: the classes that occur, in label order.
    """

    codes: np.ndarray
    class_names: tuple[str, ...]


def flatten(
    series: Iterable[np.ndarray], scratch: Path | None = None, *, rounding: Rounding | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Lay `(C, L_i)` arrays one after the other, as `SeriesData.values` and `SeriesData.offsets`.

    Args:
        series: the arrays.
        scratch: folder for a new file of the values, which are then a memory map, with one of them in memory at a time;
            None to keep all of them in memory.
        rounding: takes note of what is lost of them; None where they are float32 already.
    """
    lengths: list[int] = []

    def flat() -> Iterator[np.ndarray]:
        for one in series:
            lengths.append(one.shape[-1])
            if rounding is not None:
                rounding.add(one)
            with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinite, which `checked` reports
                yield np.asarray(one, np.float32).ravel()

    values = np.concatenate([np.empty(0, np.float32), *flat()]) if scratch is None else _mapped(flat(), scratch)
    return values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _mapped(arrays: Iterable[np.ndarray], folder: Path) -> np.ndarray:
    """Float32 arrays one after the other, as a memory map of a new `.npy` file."""
    path = folder / f"{uuid.uuid4().hex}.npy"
    with open(path, "xb") as file:
        values = ValuesFile(file)
        for array in arrays:
            values.append(array)
        values.finish()
    return np.load(path, mmap_mode="r", allow_pickle=False) if values.count else np.empty(0, np.float32)


def any_missing(values: np.ndarray) -> bool:
    """Whether a value is NaN."""
    return any(bool(np.isnan(chunk).any()) for chunk in chunks(values))


def label_texts(y: np.ndarray) -> np.ndarray:
    """Labels of any plain type as text, without white space around them; the numbers 1 and 1.0 are the same class.

    Raises:
        UserError: a label is missing, or a number that is not whole (something to predict by regression).
    """
    if y.dtype.kind in "SU":
        texts = _characters(y, "label")
        if (empty := np.flatnonzero(np.isin(texts, NO_LABELS))).size:
            shown = f" ({texts[empty[0]]})" if texts[empty[0]] else ""
            raise UserError(f"the label of {_these(empty)} is missing{shown}")
        return composed(texts)
    if y.dtype.kind == "f":
        if (missing := np.flatnonzero(np.isnan(y))).size:
            raise UserError(f"the label of {_these(missing)} is missing")
        if (broken := y[(y != np.floor(y)) | (np.abs(y) > 2**53)]).size:
            raise UserError(
                f"labels such as {broken[0]} are not classes: expected whole numbers or text (a number to predict, "
                "regression, is not supported)"
            )
    elif y.dtype.kind not in "iub":
        raise UserError(f"labels are of type {y.dtype}: expected whole numbers or text")
    return y.astype(np.uint64 if y.dtype.kind == "u" else np.int64).astype(str)


def _characters(y: np.ndarray, what: str) -> np.ndarray:
    """Text or bytes as text without white space around it; raises `UserError` where it can't be."""
    if y.dtype.kind == "U" and (broken := np.flatnonzero(_no_text(y))).size:
        raise UserError(f"the {what} of {_these(broken)} holds codes that are no characters: expected text")
    try:
        return np.char.strip(np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y)
    except UnicodeDecodeError as error:
        raise UserError(f"{what}s such as {error.object!r} are bytes that are no UTF-8: expected text") from error


def refuse_several(classes: Sequence[str]) -> None:
    """Refuse labels of several classes in one text, such as `cat;dog` where `cat` and `dog` are classes too.

    Raises:
        UserError: names the first of them.
    """
    known = set(classes)
    for text in classes:
        parts = [part.strip() for part in re.split(r"[;|,]", text)]
        if len(parts) > 1 and known.issuperset(parts):
            raise UserError(
                f"the label {text!r} names {len(parts)} classes: several labels of one series (multi-label) are not "
                "supported; expected one class, of another name where these together are one"
            )


def several_labels(shape: Sequence[int], num_series: int) -> str:
    """What to add to a message about labels of a shape: nothing, but where each series has several."""
    is_several = len(shape) == 2 and shape[0] == num_series and shape[1] > 1
    return "; several labels of one series (multi-label) are not supported" if is_several else ""


def composed(texts: np.ndarray) -> np.ndarray:
    """Text in Unicode's composed form (NFC): `é` is one class, whichever way a file or a file system writes it."""
    return np.array([unicodedata.normalize("NFC", text) for text in texts.tolist()], dtype=np.str_)


def whole_spelled(labels: list[str]) -> list[str]:
    """Labels such as `1.0` and `2.0e+00` as `1` and `2`, where all are whole and written with a fraction.

    A number that is written in two ways in one file stays so, and is refused as a class of its own.
    """
    given = [label for label in labels if label]
    if not given or not all(is_number(label) and re.search(r"[.eE]", label) for label in given):
        return labels
    values = {label: float(label) for label in set(given)}
    if any(not abs(value) < 2**53 or value != int(value) for value in values.values()):  # of more, several are alike
        return labels
    return [str(int(values[label])) if label else label for label in labels]


def _no_text(y: np.ndarray) -> np.ndarray:
    """Bool `(n,)`: where text that came from a file holds codes beyond Unicode, or halves of characters."""
    if not y.size or not y.dtype.itemsize:
        return np.zeros(len(y), bool)
    codes = np.ascontiguousarray(y).view(np.dtype("u4").newbyteorder(y.dtype.byteorder)).reshape(len(y), -1)
    return np.any((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF)), axis=1)


def class_order(texts: np.ndarray) -> list[str]:
    """Distinct labels in the order people expect: by number where all are numbers, else by text.

    Raises:
        UserError: two of them are the same number (1 and 1.0, which a table of mixed types has), or one of them names
            several of the others.
    """
    distinct = [str(t) for t in np.unique(texts)]
    refuse_several(distinct)
    try:
        numbers = {text: float(text) for text in distinct}
    except ValueError:
        return distinct
    if not np.isfinite(list(numbers.values())).all():
        return distinct
    ordered = sorted(distinct, key=numbers.__getitem__)
    for one, other in itertools.pairwise(ordered):
        if numbers[one] == numbers[other]:
            raise UserError(f"labels {one!r} and {other!r} are the same number: expected one way of writing it")
    return ordered


def class_texts(y: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """Each series' class name: `y` itself, or what its whole numbers stand for in `classes`.

    Raises:
        UserError: a label is none, or out of the range of `classes`, or `classes` are not distinct.
    """
    texts = label_texts(y)
    if classes is None:
        return texts
    names = label_texts(classes)
    if len(set(names.tolist())) < len(names):
        raise UserError(f"classes={names.tolist()}: expected each name once")
    if y.dtype.kind in "SU":
        if strangers := sorted(set(texts.tolist()) - set(names.tolist())):
            raise UserError(f"y holds {strangers[:5]}, not among the classes {names[:20].tolist()}")
        return texts
    positions = texts.astype(np.int64)
    if (wrong := np.flatnonzero((positions < 0) | (positions >= len(names)))).size:
        raise UserError(
            f"y={positions[wrong[0]]} of {_these(wrong)}: expected 0 to {len(names) - 1}, "
            f"a position in the {len(names)} classes"
        )
    return names[positions]


def encode_labels(y: np.ndarray, classes: np.ndarray | None = None) -> Labels:
    """Number the classes from 0, in the order of `classes` where given, without those that no series has.

    Args:
        y: `(n,)` labels: text, whole numbers, or (with `classes`) positions in `classes`.
        classes: `(K,)` class names, or None.

    Raises:
        UserError: a label is no class, or out of range.
    """
    texts = class_texts(y, classes)
    names = class_order(texts)
    if classes is not None:
        used = set(names)
        names = [name for name in label_texts(classes).tolist() if name in used]
    number = {name: i for i, name in enumerate(names)}
    codes = np.array([number[t] for t in texts.tolist()], dtype=np.int64)
    return Labels(codes, tuple(names))


def unseen_problems(data: SeriesData, what: str = "series") -> list[str]:
    """A line where validation series have a class that no training series has, and where test series have one."""
    known = np.unique(data.labels[data.is_training])
    problems = []
    for part, chosen in (("validation", data.is_validation), ("test", data.is_test)):
        if chosen is not None and (unseen := np.setdiff1d(data.labels[chosen], known)).size:
            names = ", ".join(repr(data.class_names[label]) for label in unseen[:5])
            problems.append(f"class {names} has {part} {what} but no training {what}")
    return problems


def class_problems(data: SeriesData) -> list[str]:
    """What is wrong with the classes of training, validation and test series; an empty list where nothing is."""
    assert (data.labels != UNKNOWN_LABEL).all()
    train = data.labels[data.is_training]
    if not len(train):
        return ["there is no training series"]
    problems = unseen_problems(data)
    if len(np.unique(train)) < 2:
        problems.append(
            f"all {len(train)} training series are of class {data.class_names[train[0]]!r}: "
            "expected at least two classes"
        )
    return problems


def group_text(group: str) -> str:
    """A group as text that is the same however a file writes it: `1.0`, as pandas does beside a missing one, is `1`."""
    return unicodedata.normalize("NFC", whole_spelled([group.strip()])[0])


def group_texts(group: np.ndarray) -> np.ndarray:
    """Groups of any plain type as text, see `group_text`.

    Raises:
        UserError: a group is missing.
    """
    texts = _characters(group, "group") if group.dtype.kind in "SU" else group.astype(str)
    if (empty := np.flatnonzero(np.isin(texts, NO_GROUPS))).size:
        raise UserError(f"the group of {_these(empty)} is missing; {A_GROUP_EACH}")
    distinct, positions = np.unique(texts, return_inverse=True)
    return np.array([group_text(text) for text in distinct.tolist()], dtype=np.str_)[positions]


def encode_groups(group: np.ndarray) -> np.ndarray:
    """Groups of any plain type as int64 codes, see `group_texts`; numbers in their order, not that of their text."""
    if group.dtype.kind not in "iub":
        group = group_texts(group)
    return np.unique(group, return_inverse=True)[1].astype(np.int64).reshape(-1)


def value_problems(values: np.ndarray, offsets: np.ndarray, num_channels: int) -> list[str]:
    """What is wrong with the values, whatever they are used for; an empty list where nothing is."""
    if len(offsets) < 2:
        return ["there is no series"]
    problems = []
    if num_channels < 1:
        return ["the series have no channels"]
    if (empty := np.flatnonzero(np.diff(offsets) == 0)).size:
        problems.append(f"{_these(empty)} has no time points")
    problems += infinite_problems(values, offsets, num_channels)
    if values.size and all(bool(np.isnan(chunk).all()) for chunk in chunks(values)):
        problems.append("all values are missing")
    return problems


def infinite_problems(values: np.ndarray, offsets: np.ndarray, num_channels: int) -> list[str]:
    """A line where series hold infinite values, as numbers beyond float32 become, in a file or by resampling."""
    first, where = 0, np.empty(0, np.int64)
    for chunk in chunks(values):
        infinite = first + np.flatnonzero(np.isinf(chunk))
        if infinite.size:
            where = np.union1d(where, np.searchsorted(offsets * num_channels, infinite, side="right") - 1)
        first += len(chunk)
    return [f"{_these(where)} holds infinite values (or larger than float32 can hold)"] if where.size else []


def checked(data: SeriesData, where: str) -> SeriesData:
    """Return `data` where it can be trained on.

    Raises:
        UserError: names every problem, each beginning with `where` (the file or the data set).
    """
    problems = value_problems(data.values, data.offsets, data.num_channels)
    if len(data):
        problems += class_problems(data)
    if problems:
        raise UserError(f"{where}: {p}" for p in problems)
    return data


def labelled_data(
    flat: tuple[np.ndarray, np.ndarray],
    texts: np.ndarray,
    is_test: np.ndarray,
    *,
    num_channels: int,
    where: str,
    rounding: Rounding | None = None,
    sampling_rate_hz: float | None = None,
    **more: Any,
) -> SeriesData:
    """Checked data from series and their labels.

    Args:
        flat: the values and offsets of series of the same number of channels, see `flatten`.
        texts: `(n,)` labels, as text or whole numbers.
        is_test: bool `(n,)`.
        num_channels: C.
        where: the file or folder, for messages.
        rounding: what is lost of the series, see `flatten`.
        sampling_rate_hz: of all of them, where it is known.
        more: further fields of `SeriesData`.

    Raises:
        UserError: names every problem, each beginning with `where`.
    """
    problems = Problems()
    if rounding is not None:
        problems.lines += rounding.problems()
    with problems.collecting():
        labels = encode_labels(texts)
    if problems.lines:
        raise UserError(f"{where}: {problem}" for problem in problems.lines)
    values, offsets = flat
    data = SeriesData(
        values=values,
        offsets=offsets,
        labels=labels.codes,
        is_test=is_test,
        class_names=labels.class_names,
        num_channels=num_channels,
        has_missing=any_missing(values),
        sampling_rate_hz=sampling_rate_hz,
        **more,
    )
    return checked(data, where)


def series_digests(data: SeriesData) -> np.ndarray:
    """uint64 `(n,)`: a number for the values of each series, the same for the same values to the last bit."""

    def digest(index: int) -> bytes:
        return hashlib.sha256(np.ascontiguousarray(data.series(index)).data).digest()[:8]

    return np.frombuffer(b"".join(map(digest, range(len(data)))), np.uint64)


def also_trained_on(data: SeriesData) -> np.ndarray:
    """Positions of the test series whose values are those of a training series."""
    digests = series_digests(data) if data.digests is None else data.digests
    tested = np.flatnonzero(data.is_test)
    return tested[np.isin(digests[tested], digests[~data.is_test])]


def header_line(names: Sequence[str]) -> str:
    """Names of columns as a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


def _these(indices: np.ndarray) -> str:
    """`series 3, 7, 9, ... (12 in all)`, for a message."""
    shown = ", ".join(str(i) for i in indices[:5])
    return f"series {shown}" + (f", ... ({len(indices)} in all)" if len(indices) > 5 else "")
