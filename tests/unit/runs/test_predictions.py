"""Predictions come back from the file as they went in, whatever the classes are called."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from krontime.errors import UserError
from krontime.runs.predictions import Predictions, check_output, read_predictions, write_predictions


def some(n: int, class_names: tuple[str, ...], dtype=np.float32, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(len(class_names)), size=n).astype(dtype)
    codes = rng.integers(-1, len(class_names), size=n)
    return Predictions.from_codes(rng.permutation(n), codes, probabilities, class_names)


def assert_same(actual: Predictions, expected: Predictions) -> None:
    assert actual.class_names == expected.class_names
    assert actual.labels == expected.labels
    assert actual.predicted == expected.predicted
    assert actual.probabilities.dtype == expected.probabilities.dtype
    np.testing.assert_array_equal(actual.index, expected.index)
    np.testing.assert_array_equal(actual.probabilities, expected.probabilities)


NAMES = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)  # the first case imports pyarrow
@given(
    names=st.lists(NAMES, min_size=2, max_size=5, unique=True),
    n=st.integers(0, 6),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_parquet_round_trip_is_exact(tmp_path_factory, names, n, dtype):
    path = tmp_path_factory.mktemp("predictions") / "test.parquet"
    predictions = some(n, tuple(names), dtype)
    write_predictions(predictions, path)
    assert_same(read_predictions(path), predictions)


def test_csv_holds_the_same_numbers_and_names(tmp_path):
    names = ('a "quoted", name', "日本", "NA", "p_x")
    predictions = some(40, names)
    write_predictions(predictions, tmp_path / "out.CSV")
    with (tmp_path / "out.CSV").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "predicted", *(f"p_{name}" for name in names)]
    assert [row["label"] or None for row in rows] == predictions.labels
    assert [row["predicted"] for row in rows] == predictions.predicted
    assert [int(row["index"]) for row in rows] == predictions.index.tolist()
    result = np.array([[row[f"p_{name}"] for name in names] for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(result, predictions.probabilities)


def test_unknown_labels_are_null_and_files_land_in_new_folders(tmp_path):
    predictions = Predictions(np.arange(2), [None, None], np.array([[0.2, 0.8], [0.5, 0.5]]), ("a", "b"))
    path = tmp_path / "new" / "out.parquet"
    write_predictions(predictions, path)
    frame = pd.read_parquet(path)
    assert frame["label"].isna().all()
    assert frame["predicted"].tolist() == ["b", "a"]
    assert [file.name for file in path.parent.iterdir()] == ["out.parquet"]


@pytest.mark.parametrize("name", ["out.xlsx", "out", "out.json", "csv", ".parquet"])
def test_other_endings_are_refused_before_any_work(tmp_path, name):
    with pytest.raises(UserError, match=r"output=.*\.csv or \.parquet"):
        check_output(tmp_path / name)
    with pytest.raises(UserError):
        write_predictions(some(3, ("a", "b")), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_missing_partial_and_foreign_files_are_user_errors(tmp_path):
    path = tmp_path / "test.parquet"
    with pytest.raises(UserError, match=r"test\.parquet"):
        read_predictions(path)
    write_predictions(some(3, ("a", "b")), path)
    whole = path.read_bytes()
    for partial in (b"", whole[:50], whole[:-20]):
        path.write_bytes(partial)
        with pytest.raises(UserError, match=r"test\.parquet"):
            read_predictions(path)
    pd.DataFrame({"x": [1]}).to_parquet(path)
    with pytest.raises(UserError, match="columns"):
        read_predictions(path)
    pd.DataFrame({"index": [1], "label": ["a"], "predicted": ["a"]}).to_parquet(path)
    with pytest.raises(UserError, match="p_<class>"):
        read_predictions(path)


def test_a_changed_prediction_is_noticed(tmp_path: Path):
    path = tmp_path / "test.parquet"
    write_predictions(some(5, ("a", "b")), path)
    frame = pd.read_parquet(path)
    frame["predicted"] = frame["predicted"].map({"a": "b", "b": "a"})
    frame.to_parquet(path)
    with pytest.raises(UserError, match="its probabilities decide for"):
        read_predictions(path)
