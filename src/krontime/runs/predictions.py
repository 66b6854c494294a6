"""Reads and writes predictions as a table: true class, predicted class, and the probability of every class."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from krontime.data.series import SeriesData
from krontime.errors import UserError
from krontime.metrics import decide
from krontime.storage import PREDICTIONS, replacing, writing_problem

if TYPE_CHECKING:
    from pyarrow import Table
    from torch import Tensor

_PROBABILITY = "p_"
_PRIOR = "krontime_prior"
GROUP = "group"
SET = "set"
ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True)
class Predictions:
    """What a model says of n series, with K classes.

    Attributes:
        index: int64 `(n,)`, position of each series in its data set or file.
        labels: true class name of each series, None where it is not known.
        probabilities: float32 or float64 `(n, K)`.
        class_names: K different names, in the order of the columns of `probabilities`.
        prior: `(K,)`, by which classes are decided, see `decide`; None for all alike.
        groups: code of what each series shares with others (speaker, patient); None where that is not known.
        decided: `(n,)` position of the class of each series, where another rule decides; None for `decide`.
        sets: bool `(n, K)`, a set of classes for each series; None for no such sets.
        observed: bool `(n,)`, false where a series has no value, so that nothing is said of it; None for all true.
    """

    index: np.ndarray
    labels: list[str | None]
    probabilities: np.ndarray
    class_names: tuple[str, ...]
    prior: np.ndarray | None = None
    groups: np.ndarray | None = None
    decided: np.ndarray | None = None
    sets: np.ndarray | None = None
    observed: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert self.probabilities.shape == (len(self.index), len(self.class_names))
        assert self.probabilities.dtype in (np.float32, np.float64)
        assert len(self.labels) == len(self.index)
        assert len(set(self.class_names)) == len(self.class_names)

    @classmethod
    def from_codes(
        cls,
        index: np.ndarray,
        codes: np.ndarray,
        probabilities: np.ndarray,
        class_names: tuple[str, ...],
        prior: np.ndarray | None = None,
    ) -> "Predictions":
        """Make predictions from labels `(n,)` that are positions in `class_names`, negative where not known."""
        labels = [class_names[code] if code >= 0 else None for code in codes.tolist()]
        return cls(np.asarray(index, dtype=np.int64), labels, probabilities, class_names, prior)

    @cached_property
    def predicted(self) -> list[str]:
        """Name of the class that is decided for each series; the first of equals."""
        decided = self.decided
        if decided is None:
            decided = decide(self.probabilities, 1.0 if self.prior is None else self.prior)
        return [self.class_names[code] for code in decided]


def check_output(path: Path) -> None:
    """Refuse a file that `write_predictions` cannot write, before any work is done.

    Raises:
        UserError: the ending is neither `.csv` nor `.parquet`, or its folder can't be written.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"output={str(path)!r}: expected a file name that ends in {' or '.join(ENDINGS)}")
    if problem := writing_problem(path):
        raise UserError(f"output={str(path)!r}: can't be written ({problem})")


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write `index`, `label`, `predicted` and a column `p_<class>` per class, as the file ending says.

    Parquet holds the numbers exactly, CSV (UTF-8) the shortest text that gives them back; an unknown label is
    null or an empty field.

    Raises:
        UserError: the ending is neither `.csv` nor `.parquet`.
    """
    check_output(path)
    write_table(prediction_table(predictions), path)


def prediction_table(
    predictions: Predictions,
    *,
    files: Sequence[str] | None = None,
    broken: Sequence[tuple[str, tuple[str, int]]] | None = None,
) -> "Table":
    """Make the table that `write_predictions` writes.

    A series that has no value has no class, no set and no probabilities.

    Args:
        predictions: what the model says. Sets of classes become a column `set`, a list in JSON.
        files: the file of each series, for a column `file`; None for no such column.
        broken: name of each file that gave no series, why, and how many series came before it: rows without a class,
            and a column `error`. None for no such column.
    """
    import pyarrow as pa

    num_series = len(predictions.index)
    missing = broken or []
    # Rows of broken files stand where their series would; -1 marks them.
    rows: list[int] = []
    for position in range(num_series + 1):
        rows += [-1 - i for i, (_, (_, before)) in enumerate(missing) if before == position]
        rows += [position] if position < num_series else []
    taken = pa.array([None if row < 0 else row for row in rows], type=pa.int64())
    columns = {"index": pa.array(predictions.index, type=pa.int64()).take(taken)}
    if missing:
        columns["index"] = pa.array(range(len(rows)), type=pa.int64())
    if files is not None:
        columns["file"] = pa.array([files[row] if row >= 0 else missing[-1 - row][0] for row in rows], type=pa.string())
    columns["label"] = pa.array(predictions.labels, type=pa.string()).take(taken)
    said = taken
    if predictions.observed is not None:
        said = pa.array([row if row >= 0 and predictions.observed[row] else None for row in rows], type=pa.int64())
    columns["predicted"] = pa.array(predictions.predicted, type=pa.string()).take(said)
    if predictions.sets is not None:
        names = np.array(predictions.class_names, dtype=object)
        sets = [json.dumps(names[row].tolist(), ensure_ascii=False) for row in predictions.sets]
        columns[SET] = pa.array(sets, type=pa.string()).take(said)
    if predictions.groups is not None:
        columns[GROUP] = pa.array(predictions.groups, type=pa.int64()).take(taken)
    for column, name in enumerate(predictions.class_names):
        probability = pa.array(np.ascontiguousarray(predictions.probabilities[:, column]))
        columns[_PROBABILITY + name] = probability.take(said)
    if broken is not None:
        columns["error"] = pa.array([None if row >= 0 else missing[-1 - row][1][0] for row in rows], type=pa.string())
    table = pa.table(columns)
    if predictions.prior is not None:
        table = table.replace_schema_metadata({_PRIOR: json.dumps(predictions.prior.tolist())})
    return table


def write_table(table: "Table", path: Path) -> None:
    """Write a table as Parquet or CSV, as the file's ending says."""
    with replacing(path) as temporary:
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet

            parquet.write_table(table, temporary)
        else:
            table.to_pandas().to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")


def read_predictions(path: Path) -> Predictions:
    """Read the predictions that `write_predictions` left in a Parquet file.

    Raises:
        UserError: the file is missing, damaged, or its columns do not fit together.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable file of predictions ({error})") from error
    groups = table[GROUP].to_numpy() if GROUP in table.column_names[3:4] else None
    names = [name for name in table.column_names if groups is None or name != GROUP]
    if names[:3] != ["index", "label", "predicted"] or not all(n.startswith(_PROBABILITY) for n in names[3:]):
        raise UserError(f"{path}: expected the columns index, label, predicted and p_<class>, found {names}")
    if not names[3:]:
        raise UserError(f"{path}: no column p_<class>")
    predictions = Predictions(
        index=table["index"].to_numpy(),
        labels=table["label"].to_pylist(),
        probabilities=np.stack([table[name].to_numpy() for name in names[3:]], axis=1),
        class_names=tuple(name.removeprefix(_PROBABILITY) for name in names[3:]),
        prior=_prior(table.schema.metadata or {}),
        groups=groups,
    )
    if table["predicted"].to_pylist() != predictions.predicted:
        raise UserError(f"{path}: the column predicted does not name the classes that its probabilities decide for")
    return predictions


def _prior(metadata: Mapping[bytes, bytes]) -> np.ndarray | None:
    return np.array(json.loads(metadata[_PRIOR.encode()])) if _PRIOR.encode() in metadata else None


@dataclass(frozen=True)
class Outcomes:
    """What a model said of n test series whose class is known, by the series' position in its data set.

    Attributes:
        index: int64 `(n,)`, ascending.
        labels: `(n,)`, names of the true classes.
        predicted: `(n,)`, names of the predicted classes.
        positive: name of the second class, where there are two; None for more, or where no probabilities are known.
        probability: `(n,)` of that class; None without it.
        groups: int64 `(n,)`, code of what each series shares with others (speaker, patient); None where there are none.
    """

    index: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    positive: str | None = None
    probability: np.ndarray | None = None
    groups: np.ndarray | None = None

    @property
    def correct(self) -> np.ndarray:
        """`(n,)`, whether each series was classified right."""
        return self.labels == self.predicted


def read_outcomes(folder: Path) -> Outcomes | None:
    """Read what the predictions in a run folder say of the labelled series; None where there are none.

    Raises:
        UserError: the file is damaged.
    """
    import pandas as pd

    path = folder / PREDICTIONS
    if not path.is_file():
        return None
    try:
        table = pd.read_parquet(path).dropna(subset=["label"])
        classes = [name for name in table if name.startswith(_PROBABILITY)]
        second = classes[1] if len(classes) == 2 else None
        table = table.astype({"index": "int64", **({second: "float64"} if second else {})}).sort_values("index")
        return Outcomes(
            index=table["index"].to_numpy(),
            labels=table["label"].to_numpy(object),
            predicted=table["predicted"].to_numpy(object),
            positive=second and second.removeprefix(_PROBABILITY),
            probability=None if second is None else table[second].to_numpy(),
            groups=table[GROUP].to_numpy("int64") if GROUP in table else None,
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a readable file of predictions ({error})") from error


def named(probability: "Tensor", data: SeriesData, indices: np.ndarray, prior: "Tensor") -> Predictions:
    """Make predictions of the series of `data` at `indices`, with groups where there are some.

    Args:
        probability: `(n, K)`, in the order of `indices`.
        data: the series.
        indices: `(n,)`, their positions.
        prior: `(K,)`, see `decide`.
    """
    labels = data.labels[indices]
    predictions = Predictions.from_codes(indices, labels, probability.numpy(), data.class_names, prior.numpy())
    return predictions if data.groups is None else replace(predictions, groups=data.groups[indices])
