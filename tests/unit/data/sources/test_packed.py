"""Arrays with attributes of the CF conventions are read as what they stand for, in HDF5 and in Zarr."""

import base64
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime.data.cache import load_cached
from krontime.data.prepare import Prepare
from krontime.data.sources.array_files import ArrayFilesSource
from krontime.data.sources.packed import unpacked
from krontime.errors import UserError

RAW = np.array([[1, 2, -999, 32767, -5], [6, 7, 8, 9, 10]], np.int16)
NAN = np.nan


def b64(value: float) -> str:
    return base64.standard_b64encode(struct.pack("<d", value)).decode()


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"_FillValue": -999}, [1, 2, NAN, 32767, -5]),
        ({"missing_value": [-999, 32767]}, [1, 2, NAN, NAN, -5]),
        ({"_FillValue": -999.0, "missing_value": np.int16(32767)}, [1, 2, NAN, NAN, -5]),
        ({"_FillValue": b64(-999)}, [1, 2, NAN, 32767, -5]),
        ({"_FillValue": "NaN"}, [1, 2, -999, 32767, -5]),
        ({"_FillValue": -999, "scale_factor": 0.5, "add_offset": 10}, [10.5, 11, NAN, 16393.5, 7.5]),
        ({"valid_min": 0, "valid_max": 99}, [1, 2, NAN, NAN, NAN]),
        ({"valid_range": [-np.inf, 9], "_FillValue": "-999.00000000"}, [1, 2, NAN, NAN, -5]),
        ({"valid_range": [-999, 0]}, [NAN, NAN, -999, NAN, -5]),
        ({"scale_factor": 0.1, "valid_range": [0, 50]}, [0.1, 0.2, NAN, NAN, NAN]),  # of the numbers as stored
        ({"scale_factor": 0.1, "valid_range": [-0.5, 0.1]}, [0.1, NAN, NAN, NAN, -0.5]),  # of what they stand for
        ({"_Unsigned": "true", "_FillValue": 2**16 - 999}, [1, 2, NAN, 32767, 65531]),
    ],
)
def test_numbers_become_what_they_stand_for(attributes, expected):
    np.testing.assert_allclose(unpacked(RAW, attributes)[0], expected, rtol=1e-15)


def test_floats_have_codes_as_they_are_stored():
    raw = np.array([0.1, -9999.9, 9.96921e36, 1.0], np.float32)
    values = unpacked(raw, {"_FillValue": -9999.9, "missing_value": 9.96921e36, "valid_max": 1.0, "valid_min": 0.1})
    np.testing.assert_array_equal(values, np.array([0.1, NAN, NAN, 1.0], np.float32))
    assert values.dtype == np.float32


def test_a_range_of_scaled_floats_is_of_the_numbers_as_stored():
    values = unpacked(np.array([1.0, 4.0]), {"scale_factor": 0.5, "valid_range": [0.0, 3.0]})
    np.testing.assert_array_equal(values, [0.5, NAN])


def test_truth_values_have_no_code():
    with pytest.raises(ValueError, match="attribute missing_value=1: expected a number that bool holds"):
        unpacked(np.array([True, False]), {"missing_value": 1})


def test_numbers_without_attributes_that_count_are_as_they_are():
    assert unpacked(RAW, {"units": "K", "long_name": "x"}) is RAW


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"scale_factor": "a half"}, r"attribute scale_factor='a half': expected a number"),
        ({"scale_factor": [0.5, 0.25]}, r"attribute scale_factor=\[0.5, 0.25\]: expected one finite number"),
        ({"add_offset": NAN}, "attribute add_offset=nan: expected one finite number"),
        ({"valid_range": [1]}, r"attribute valid_range=\[1\]: expected two numbers, the smallest"),
        ({"valid_min": NAN}, "attribute valid_min=nan: expected one finite number"),
        ({"_FillValue": 0.5}, "attribute _FillValue=0.5: expected a number that int16 holds"),
        ({"_FillValue": 70_000}, "attribute _FillValue=70000: expected a number that int16 holds"),
        ({"missing_value": None}, "attribute missing_value=None: expected a number"),
    ],
)
def test_what_the_conventions_do_not_say_is_refused(attributes, message):
    with pytest.raises(ValueError, match=message):
        unpacked(RAW, attributes)


def hdf5(path: Path, attributes: dict[str, Any]) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_dataset("t", data=RAW, fillvalue=7).attrs.update(attributes)


def zarr_of(version: int) -> Callable[[Path, dict[str, Any]], None]:
    def write(path: Path, attributes: dict[str, Any]) -> None:
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(path, mode="w", zarr_format=version)
        options = {"shape": RAW.shape, "dtype": RAW.dtype, "fill_value": 7, "attributes": attributes}
        group.create_array("t", **options)[...] = RAW

    return write


@pytest.mark.parametrize(("write", "suffix"), [(hdf5, "h5"), (zarr_of(2), "zarr"), (zarr_of(3), "zarr")])
def test_files_are_read_as_their_attributes_say(write, suffix, tmp_path):
    (tmp_path / "x").mkdir()
    for name in "ab":
        write(tmp_path / "x" / f"{name}.{suffix}", {"_FillValue": -999, "missing_value": 32767, "scale_factor": 0.5})
    source = ArrayFilesSource(str(tmp_path / "x"), pattern="^(?P<label>[ab])")
    data = load_cached(source, Prepare(), tmp_path / "cache")
    expected = np.where((RAW == -999) | (RAW == 32767), NAN, RAW * 0.5)
    for number in range(2):
        np.testing.assert_array_equal(data.series(number), expected)
    assert data.has_missing
    write(tmp_path / "x" / f"b.{suffix}", {"add_offset": "ten"})
    with pytest.raises(UserError, match=rf"b\.{suffix}: .*t: attribute add_offset='ten': expected a number"):
        load_cached(source, Prepare(), tmp_path / "cache")
    as_stored = ArrayFilesSource(str(tmp_path / "x"), pattern="^(?P<label>[ab])", mask_and_scale=False)
    np.testing.assert_array_equal(load_cached(as_stored, Prepare(), tmp_path / "cache").series(1), RAW)


def test_a_fill_value_of_xarray_is_a_code_and_the_default_of_zarr_is_not(tmp_path):
    for attributes, expected in (({}, RAW), ({"_ARRAY_DIMENSIONS": ["x", "t"]}, np.where(RAW == 7, NAN, RAW))):
        path = tmp_path / f"{len(attributes)}.zarr"
        zarr_of(2)(path, attributes)
        (recording,) = ArrayFilesSource(str(path)).read(path, tmp_path)
        np.testing.assert_array_equal(recording.values, expected)


def test_points_with_a_missing_label_have_none(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["x"] = np.arange(4.0)
        file["state"] = np.array([3, 3, 255, 4], np.uint8)
        file["state"].attrs["_FillValue"] = np.uint8(255)
    (recording,) = ArrayFilesSource(str(tmp_path), key="x", label_key="state").read(tmp_path / "r.h5", tmp_path)
    assert list(recording.spans) == [(0, 2, "3"), (3, 4, "4")]
