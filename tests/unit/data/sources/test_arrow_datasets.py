"""Data sets that `save_to_disk` of Hugging Face's `datasets` left are read row by row, labels by their names."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from krontime.data.cache import load_cached
from krontime.data.new_recordings import read_new_recordings
from krontime.data.prepare import Prepare
from krontime.data.sources.arrow_datasets import ArrowDatasetSource
from krontime.errors import UserError

CLASSES = {"label": {"names": ["rest", "move"], "_type": "ClassLabel"}}


def save(folder: Path, features: dict[str, Any], **columns: Any) -> Path:
    """Write a split as `save_to_disk` does: a stream of record batches, with the features beside the schema."""
    folder.mkdir(parents=True)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table(columns).replace_schema_metadata(metadata)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text("{}")
    return folder


def test_lists_of_unequal_length_with_named_classes(tmp_path):
    rows = [[1.0, 2.0, 3.0], [4.0, 5.0], [6.0, 7.0, 8.0, 9.0], [1.5, 2.5]]
    given = {"id": [7, 8, 9, 10], "x": pa.array(rows, pa.list_(pa.float32())), "who": ["ann", "bob", "ann ", "bob"]}
    save(tmp_path / "set/train", CLASSES, **given, label=[1, 0, 1, 0])
    save(tmp_path / "set/test", CLASSES, **{**given, "who": ["eve"] * 4}, label=[0, 1, 1, 0])
    source = ArrowDatasetSource(
        str(tmp_path / "set/train"), str(tmp_path / "set/test"), group="who", group_name="speaker"
    )
    data = load_cached(source, Prepare(), tmp_path / "cache")
    assert data.class_names == ("move", "rest")
    assert [data.class_names[label] for label in data.labels[:4]] == ["move", "rest", "move", "rest"]
    assert data.is_test.tolist() == [False] * 4 + [True] * 4
    assert data.group_names == ("ann", "bob", "eve")
    assert [data.series(i).tolist() for i in range(4)] == [[row] for row in rows]
    (tmp_path / "set/dataset_dict.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"it holds the splits test, train; expected one of them, as data.path=\S+/NAME"
    ):
        ArrowDatasetSource(str(tmp_path / "set")).describe()
    new = ArrowDatasetSource(str(tmp_path / "set/test"))
    read = read_new_recordings(new, [(new.files(new.path, "input")[0], "a.arrow")], data.spec, tmp_path, skip=False)
    assert read.names[:2] == ["test/data-00000-of-00001 row 0", "test/data-00000-of-00001 row 1"]


def test_new_files_need_no_column_of_labels_or_groups(tmp_path):
    rows = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], pa.list_(pa.float32()))
    save(tmp_path / "train", {}, x=rows, what=["u", "v", "u", "v"], who=["a", "b", "c", "d"])
    new = save(tmp_path / "new", {}, x=rows)
    source = ArrowDatasetSource(str(tmp_path / "train"), label="what", group="who")
    data = load_cached(source, Prepare(), tmp_path / "cache")
    read = read_new_recordings(source, [(source.files(new, "input")[0], "a.arrow")], data.spec, tmp_path, skip=False)
    assert len(read.data) == 4
    with pytest.raises(UserError, match=r"data.source.group='who': there is no such column"):
        load_cached(ArrowDatasetSource(str(new), group="who"), Prepare(), tmp_path / "cache")


@pytest.mark.parametrize("layout", [None, "channels_last"])
def test_lists_of_lists_are_channels(tmp_path, layout):
    x = np.arange(48, dtype=np.int16).reshape(4, 2, 6)
    stored = x if layout is None else x.transpose(0, 2, 1)
    save(tmp_path / "train", {}, x=pa.array(stored.tolist(), pa.list_(pa.list_(pa.int16()))), target=list("abab"))
    data = load_cached(ArrowDatasetSource(str(tmp_path / "train"), layout=layout), Prepare(), tmp_path / "cache")
    assert data.values.dtype == np.int16
    assert np.array_equal(data.series(3), x[3])


def test_audio_is_decoded_at_its_own_rate(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    encoded = []
    for i in range(4):
        file = io.BytesIO()
        soundfile.write(file, np.full(80, 0.1 * i), 8000, format="WAV", subtype="FLOAT")
        encoded.append({"bytes": file.getvalue(), "path": f"{i}.wav"})
    features = {**CLASSES, "audio": {"_type": "Audio", "sampling_rate": 8000}}
    save(tmp_path / "train", features, audio=encoded, label=[0, 1, 0, 1])
    data = load_cached(ArrowDatasetSource(str(tmp_path / "train")), Prepare(), tmp_path / "cache")
    assert data.sampling_rate_hz == 8000
    np.testing.assert_allclose(data.series(3), np.full((1, 80), 0.3), rtol=1e-6)


X = pa.array([[1.0, 2.0]] * 4)
MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "several labels": ({"x": X, "label": [["a"], ["a", "b"], ["b"], []]}, {}, r"several labels \(multi-label\)"),
    "two columns": (
        {"x": X, "z": X, "label": list("abab")},
        {},
        r"of numbers or audio x, z; expected data\.source\.val",
    ),
    "no such column": ({"x": X}, {"values": "q"}, r"data\.source\.values='q': it has the columns x"),
    "no such label": ({"x": X}, {"label": "q"}, r"data\.source\.label='q': there is no such column; expected one of x"),
    "an empty row": ({"x": [[1.0], None], "label": ["a", "b"]}, {}, r"row 1: the column x is empty"),
    "an empty group": (
        {"x": X, "label": list("abab"), "who": ["p", None, "q", "r"]},
        {"group": "who"},
        "row 1: the column who is empty",
    ),
    "ragged": ({"x": [[[1.0], [2.0, 3.0]]], "label": ["a"]}, {}, r"row 0: its lists are of different lengths"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_the_file(tmp_path, name):
    columns, options, message = MISTAKES[name]
    save(tmp_path / "train", {}, **columns)
    with pytest.raises(UserError, match=message) as error:
        load_cached(ArrowDatasetSource(str(tmp_path / "train"), **options), Prepare(), tmp_path / "cache")
    assert all(str(tmp_path / "train") in problem for problem in error.value.problems)


def test_what_is_said_of_columns_is_compared_with_them(tmp_path):
    save(tmp_path / "train", CLASSES, x=X, label=[0, 1, 2, 0])
    with pytest.raises(UserError, match=r"row 2: the label 2 is none of its 2 classes"):
        load_cached(ArrowDatasetSource(str(tmp_path / "train")), Prepare(), tmp_path / "cache")
    save(tmp_path / "other", ["label"], x=X, label=[0, 1, 1, 0])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"what it says of its columns can't be read"):
        load_cached(ArrowDatasetSource(str(tmp_path / "other")), Prepare(), tmp_path / "cache")


def test_numbers_of_a_column_with_a_missing_one_are_the_same_classes(tmp_path):
    folder = save(tmp_path / "train", {}, x=X, label=[0.0, float("nan"), 1.0, 1.5])
    source = ArrowDatasetSource(str(folder))
    [file] = source.files(folder, "data.path")
    assert [recording.label for recording in source.read(file, tmp_path)] == ["0", None, "1", "1.5"]


def test_what_was_computed_from_a_split_since_is_no_part_of_it(tmp_path):
    folder = save(tmp_path / "train", CLASSES, x=X, label=[0, 1, 1, 0])
    source = ArrowDatasetSource(str(folder))
    [file] = source.files(folder, "data.path")
    (folder / "cache-0f1e.arrow").write_bytes(file.read_bytes())  # as `Dataset.map` leaves it
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": file.name}]}))
    assert source.files(folder, "data.path") == [file]
    file.unlink()
    with pytest.raises(UserError, match=r"its data-00000-of-00001\.arrow is not there"):
        source.describe()
    (folder / "state.json").write_text("[]")
    with pytest.raises(UserError, match=r"state\.json: expected what save_to_disk writes"):
        source.describe()


def test_another_file_is_told(tmp_path):
    (tmp_path / "x.arrow").write_bytes(b"not arrow" * 9)
    with pytest.raises(UserError, match=r"x\.arrow: cannot be read as Arrow"):
        load_cached(ArrowDatasetSource(str(tmp_path / "x.arrow")), Prepare(), tmp_path / "cache")
