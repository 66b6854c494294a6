"""Files of several arrays from strangers: what they declare is checked, and only the array that is used is read."""

from pathlib import Path

import numpy as np
import pytest

from krontime.data.sources import arrays
from krontime.data.sources.array_files import ArrayFilesSource
from krontime.errors import UserError


def read(path: Path, key: str | None = None) -> np.ndarray:
    (recording,) = ArrayFilesSource(str(path), key=key).read(path, path.parent)
    return recording.values


def test_a_small_file_cannot_claim_the_memory_of_a_large_array(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file.create_dataset("x", shape=(1, 3 * 10**9), dtype="f8", chunks=(1, 10**6), compression="gzip")
        file["y"] = np.arange(6.0).reshape(2, 3)
    with pytest.raises(UserError, match=r"x: it declares the shape \(1, 3000000000\), which is over 200 times"):
        read(tmp_path / "r.h5", "x")
    np.testing.assert_array_equal(read(tmp_path / "r.h5", "y"), [[0, 1, 2], [3, 4, 5]])


def test_chunks_cannot_claim_more_room_than_their_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "r.h5"
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", (10**8,), "f8", chunks=(10**6,), compression="gzip")
        x[: 10**6] = 0
        size = x.id.get_chunk_info(0).size
    content = path.read_bytes()
    stated = size.to_bytes(4, "little")
    assert content.count(stated) == 1
    path.write_bytes(content.replace(stated, (2**31).to_bytes(4, "little")))
    with pytest.raises(UserError, match=f"x: it declares .* over 200 times the {len(content):,} bytes"):
        read(path)


def test_a_matlab_file_that_inflates_too_much_is_refused(tmp_path, monkeypatch):
    from scipy.io import savemat

    monkeypatch.setattr(arrays, "FREE_BYTES", 2**16)
    wave = np.random.default_rng(0).standard_normal((2, 1000))
    savemat(tmp_path / "r.mat", {"zeros": np.zeros((2, 10**6)), "x": wave}, do_compression=True)
    with pytest.raises(UserError, match=r"zeros: it declares the shape \(2, 1000000\)"):
        read(tmp_path / "r.mat", "zeros")
    np.testing.assert_array_equal(read(tmp_path / "r.mat", "x"), wave)


def test_memory_for_what_numbers_stand_for_does_not_count_as_claimed(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(arrays, "FREE_BYTES", 0)
    states = np.repeat(np.random.default_rng(0).integers(0, 5, (2, 2000), np.int8), 50, axis=1)
    with h5py.File(tmp_path / "r.h5", "w") as file:
        stored = file.create_dataset("x", data=states, compression="gzip")
        stored.attrs["_FillValue"] = np.int8(-1)
        assert 20 < states.size / stored.id.get_storage_size() < 200
    np.testing.assert_array_equal(read(tmp_path / "r.h5"), states)


def test_what_matlab_keeps_of_its_objects_is_no_array_of_the_user(tmp_path):
    from scipy.io import savemat, whosmat

    wave = np.random.default_rng(0).standard_normal((2, 50))
    savemat(tmp_path / "r.mat", {"x": wave, "w": np.arange(60, dtype=np.uint8)})
    named = b"\x01\x00\x01\x00w\x00\x00\x00"
    content = (tmp_path / "r.mat").read_bytes()
    assert content.count(named) == 1
    (tmp_path / "r.mat").write_bytes(content.replace(named, b"\x01" + bytes(7)))  # without a name, as MATLAB does
    assert [name for name, *_ in whosmat(tmp_path / "r.mat")] == ["x", "__function_workspace__"]
    np.testing.assert_array_equal(read(tmp_path / "r.mat"), wave)


@pytest.mark.parametrize("kind", ["external", "virtual", "large virtual"])
def test_arrays_that_lie_in_other_files_are_refused(tmp_path, kind):
    h5py = pytest.importorskip("h5py")
    np.arange(20.0).tofile(tmp_path / "secret")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["z"] = np.arange(20.0)
    with h5py.File(tmp_path / "r.h5", "w") as file:
        if kind == "external":
            file.create_dataset("x", (20,), "f8", external=[(str(tmp_path / "secret"), 0, 160)])
        else:
            layout = h5py.VirtualLayout((20 if kind == "virtual" else 10**9,), "f8")
            layout[:20] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "z", (20,))
            file.create_virtual_dataset("x", layout)
    with pytest.raises(UserError, match="x: its numbers lie in other files"):
        read(tmp_path / "r.h5")


def test_damaged_numbers_are_refused_where_they_are_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "r.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "x", data=np.random.default_rng(0).standard_normal(1000), compression="gzip", chunks=(1000,)
        )
        file["y"] = np.arange(6.0)
        place, size = file["x"].id.get_chunk_info(0)[2:]
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as an array of numbers \(x: "):
        read(path, "x")
    np.testing.assert_array_equal(read(path, "y"), np.arange(6.0)[None])


@pytest.mark.parametrize("kept", [0, 200])
def test_files_without_a_list_of_arrays_are_told(tmp_path, kept):
    from scipy.io import savemat

    path = tmp_path / "r.mat"
    savemat(path, {"x": np.random.default_rng(0).standard_normal((2, 500))}, do_compression=True)
    content = path.read_bytes()[:kept]
    path.write_bytes(content[:136] + bytes(len(content[136:])))
    with pytest.raises(UserError, match=r"r\.mat: cannot be read as an array of numbers \("):
        read(path)
