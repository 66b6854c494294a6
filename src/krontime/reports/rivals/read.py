"""Folders of published figures: a file for each classifier and measure, or one for each measure.

tsml-eval's own files are `NAME_MEASURE.csv`: a row a data set, its name first, and a column a resample. The other
layout is `MEASURE.csv` with the columns `dataset`, `classifier`, `r0`, `r1`, ... An empty field is a figure that is not
there.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from krontime.errors import UserError
from krontime.metrics import MetricName

MEASURES: Mapping[MetricName, tuple[str, ...]] = {
    "accuracy": ("accuracy", "acc"),
    "balanced_accuracy": ("balacc",),
    "nll": ("logloss",),
    "auroc": ("auroc",),
}
"""What the archive calls a metric in the names of files, in lower case; the first is what we write."""

_METRICS = {word: metric for metric, words in MEASURES.items() for word in words}

Place = tuple[str, int]
"""A data set and the number of a resample."""

Scores = dict[str, dict[Place, float]]
"""By classifier."""


@dataclass(frozen=True)
class PublishedScores:
    """What a folder holds.

    Attributes:
        scores: by metric and classifier.
        source: where they come from, in the words of the folder's README.md.
    """

    scores: Mapping[MetricName, Scores]
    source: str


def read_published_folder(folder: Path) -> PublishedScores:
    """Every figure of a folder, and of those in it.

    Raises:
        UserError: there is none, or some are no figures; names every such line.
    """
    scores: dict[MetricName, Scores] = {}
    problems: list[str] = []
    for path in sorted(folder.rglob("*.csv")):
        name, _, measure = path.stem.rpartition("_")
        metric = _METRICS.get(measure.lower())
        if metric is None:
            continue
        known = scores.setdefault(metric, {})
        for line, classifier, place, text in _fields(path, name, problems):
            value = _number(text, metric)
            if value is None:
                problems.append(f"{path}: line {line}: {text!r}: expected a figure of {metric.replace('_', ' ')}")
            elif place in known.setdefault(classifier, {}):
                problems.append(f"{path}: line {line}: {classifier} has a figure of {place[0]} already")
            else:
                known[classifier][place] = value
    if not problems and not any(scores.values()):
        problems.append(
            f"published={str(folder)!r}: expected files NAME_MEASURE.csv or MEASURE.csv, of the measures "
            f"{', '.join(words[0] for words in MEASURES.values())}"
        )
    if problems:
        raise UserError(problems)
    return PublishedScores(scores, _source(folder))


def _fields(path: Path, name: str, problems: list[str]) -> Iterator[tuple[int, str, Place, str]]:
    """`(line, classifier, place, text)` of every field that is not empty."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        problems.append(f"{path}: not a readable CSV file ({error})")
        return
    num_names = 1 if name else 2
    header = rows[0] if rows else []
    numbers = [re.fullmatch(r"r?(\d+)", text) for text in header[num_names:]]
    if not numbers or not all(numbers) or (not name and header[:2] != ["dataset", "classifier"]):
        first = "the name of a data set" if name else "dataset,classifier"
        problems.append(f"{path}: expected the columns {first} and the numbers of resamples, found {','.join(header)}")
        return
    resamples = [int(match[1]) for match in numbers if match]
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            problems.append(f"{path}: line {line}: expected {len(header)} fields, found {len(row)}")
            continue
        classifier = name or row[1]
        for resample, text in zip(resamples, row[num_names:], strict=True):
            if text.strip():
                yield line, classifier, (row[0], resample), text


def _number(text: str, metric: MetricName) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    highest = math.inf if metric == "nll" else 1.0
    return value if math.isfinite(value) and 0 <= value <= highest else None


def _source(folder: Path) -> str:
    """The first paragraph of README.md that is no heading; the folder's name where there is none."""
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return next((part for part in paragraphs if part and not part.startswith("#")), folder.name)
