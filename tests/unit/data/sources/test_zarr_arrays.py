"""Zarr stores of both versions are recordings; what they name is not run, and what they claim is not believed."""

import base64
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from krontime.data.cache import load_cached
from krontime.data.guess import guess
from krontime.data.new_recordings import read_new_recordings
from krontime.data.new_series import input_files
from krontime.data.prepare import Prepare
from krontime.data.sources.array_files import ArrayFilesSource
from krontime.errors import UserError

zarr = pytest.importorskip("zarr")
X = np.random.default_rng(0).integers(-99, 99, (2, 30)).astype(np.int16)
STATE = np.repeat([1, -1, 2], 10)


def write(path: Path, version: int, values: np.ndarray = X) -> Path:
    store = zarr.open_group(path, mode="w", zarr_format=version)
    within = store.create_group("session")
    sharded = {"shards": (2, 16)} if version == 3 else {}
    within.create_array("emg", shape=values.shape, chunks=(2, 8), dtype=values.dtype, **sharded)[...] = values
    store.create_array("state", shape=STATE.shape, chunks=(30,), dtype=STATE.dtype)[...] = STATE
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_is_a_recording_to_train_and_to_predict_on(version, tmp_path):
    (tmp_path / "x").mkdir()
    for name in "ab":
        write(tmp_path / "x" / f"{name}.zarr", version)
    np.save(tmp_path / "x" / "c.npy", X)
    (tmp_path / "labels.csv").write_text("file,label\na.zarr,rest\nb.zarr,grip\nc.npy,grip\n")
    source = ArrayFilesSource(
        str(tmp_path / "x"), annotations=str(tmp_path / "labels.csv"), key="session/emg", sampling_rate_hz=100
    )
    data = load_cached(source, Prepare(), tmp_path / "cache")
    assert data.recording_names == ("a", "b", "c")
    assert data.class_names == ("grip", "rest")
    assert data.values.dtype == np.int16
    for number in range(3):
        np.testing.assert_array_equal(data.series(number), X)
    files, _ = input_files(tmp_path / "x", source)
    assert [name for _, name in files] == ["a.zarr", "b.zarr", "c.npy"]
    assert input_files(tmp_path / "x" / "a.zarr", source)[0] == files[:1]
    assert [path for path, _ in input_files(tmp_path / "x" / "*.zarr", source)[0]] == [file for file, _ in files[:2]]
    np.testing.assert_array_equal(
        read_new_recordings(source, files, data.spec, tmp_path, skip=False).data.values, np.tile(X.ravel(), 3)
    )


@pytest.mark.parametrize("version", [2, 3])
def test_labels_over_time_and_names_that_are_not_there(version, tmp_path):
    path = write(tmp_path / "all" / "some" / "a.zarr", version, X / 2)
    data = load_cached(ArrayFilesSource(str(path), label_key="state"), Prepare(), tmp_path / "cache")
    np.testing.assert_array_equal(data.stretch(0), X / 2)
    assert data.annotations.tolist() == [[0, 0, 10, 0], [0, 20, 30, 1]]
    with pytest.raises(
        UserError, match=r"data.source.key='emg': it holds {'session/emg': \(2, 30\), 'state': \(30,\)}"
    ):
        next(ArrayFilesSource(str(path), key="emg").read(path, tmp_path))
    for given in (path, path.parent, path.parents[1]):
        with pytest.raises(UserError, match=r"\.zarr.*: data=arrays reads recordings with labels"):
            guess(given)


def test_a_store_that_is_an_array_changes_with_a_chunk(tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=X.shape, chunks=(2, 10), dtype=X.dtype)
    array[...] = X
    source = ArrayFilesSource(str(path))
    (recording,) = source.read(path, tmp_path)
    np.testing.assert_array_equal(recording.values, X)
    before = source.describe()
    assert source.describe() == before
    chunk = next(file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "zarr.json")
    chunk.touch()
    os.utime(chunk, ns=(1, 1))
    assert source.describe() != before


class _Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def v2(path: Path, chunk: bytes = b"", **about) -> Path:
    """An array of 4 float32 in one chunk."""
    path.mkdir()
    plain = {"zarr_format": 2, "shape": [1, 4], "chunks": [1, 4], "dtype": "<f4", "fill_value": 0, "order": "C"}
    (path / ".zarray").write_text(json.dumps({**plain, "compressor": None, "filters": None, **about}))
    (path / "0.0").write_bytes(chunk)
    return path


def v3(path: Path, chunk: bytes = b"", **about) -> Path:
    """The same in version 3."""
    (path / "c/0").mkdir(parents=True)
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, 4]}}
    keys = {"name": "default", "configuration": {"separator": "/"}}
    plain = {"zarr_format": 3, "node_type": "array", "shape": [1, 4], "data_type": "float32", "fill_value": 0}
    plain |= {"chunk_grid": grid, "chunk_key_encoding": keys, "codecs": [BYTES], "attributes": {}}
    (path / "zarr.json").write_text(json.dumps({**plain, **about}))
    (path / "c/0/0").write_bytes(chunk)
    return path


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
PICKLE = {"name": "numcodecs.pickle", "configuration": {}}
SHARDS = {"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 4], "codecs": [BYTES, PICKLE]}}
TRAPS = {
    "compressor": (v2, {"compressor": {"id": "pickle"}}),
    "filter": (v2, {"filters": [{"id": "pickle"}]}),
    "codec": (v3, {"codecs": [PICKLE, BYTES]}),
    "codec of shards": (v3, {"codecs": [SHARDS]}),
}


@pytest.mark.parametrize(("make", "about"), TRAPS.values(), ids=TRAPS)
def test_nothing_is_unpickled(make, about, tmp_path):
    path = make(tmp_path / "x.zarr", pickle.dumps(_Trap(tmp_path / "made")), **about)
    with pytest.raises(UserError, match=r"x\.zarr: cannot be read .*: it is stored with 'pickle'; expected one of"):
        list(ArrayFilesSource(str(path)).read(path, tmp_path))
    assert not (tmp_path / "made").exists()


def test_objects_are_no_numbers(tmp_path):
    fill = base64.b64encode(pickle.dumps(_Trap(tmp_path / "made"))).decode()
    path = v2(tmp_path / "x.zarr", dtype="|O", fill_value=fill, filters=[{"id": "pickle"}])
    with pytest.raises(UserError, match="it holds no arrays of numbers"):
        list(ArrayFilesSource(str(path)).read(path, tmp_path))
    assert not (tmp_path / "made").exists()


WRONG = {
    "terabytes without a chunk": (
        v2,
        {"shape": [1, 10**12], "chunks": [1, 10**12]},
        r"which is over 200 times the 1\d{2} bytes",
    ),
    "the same in version 3": (v3, {"shape": [10**9, 10**9]}, "which is over 200 times the"),
    "a codec without a name": (v2, {"compressor": {}}, "its metadata are damaged"),
    "codecs that are a number": (v3, {"codecs": [5]}, "its metadata are damaged"),
    "no shape": (v3, {"shape": None}, r"/: "),
    "a chunk that is too short": (v2, {}, "cannot be read"),
    "a damaged chunk": (v2, {"compressor": {"id": "zlib", "level": 1}}, "cannot be read"),
    "nothing known": (v2, {"dtype": "complex"}, "it holds no arrays of numbers"),
}


@pytest.mark.parametrize(("make", "about", "said"), WRONG.values(), ids=WRONG)
def test_what_is_damaged_or_too_large_is_told(make, about, said, tmp_path):
    path = make(tmp_path / "x.zarr", b"123", **about)
    with pytest.raises(UserError, match=said):
        list(ArrayFilesSource(str(path)).read(path, tmp_path))


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"[" * 100_000])
def test_damaged_metadata_are_told(content, tmp_path):
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / ".zarray").write_bytes(content)
    with pytest.raises(UserError, match=r"\.zarray is damaged"):
        list(ArrayFilesSource(str(tmp_path)).read(tmp_path / "x.zarr", tmp_path))


def test_the_missing_library_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.zarr", 3)
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(UserError, match=r"Zarr needs the extra zarr: expected pip install 'krontime\[zarr\]'"):
        list(ArrayFilesSource(str(path)).read(path, tmp_path))
