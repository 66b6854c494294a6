"""Arrays whose attributes say what their numbers stand for, by the CF conventions that NetCDF, HDF5 and Zarr share.

`_FillValue` and `missing_value` are codes of missing values, and what `valid_min`, `valid_max` and `valid_range` leave
out is missing too; numbers times `scale_factor` plus `add_offset` are the values; `_Unsigned` says how integers are
meant (CF conventions 1.11, 2.5.1 and 8.1).

What a format fills chunks with that were never written, HDF5's fill value and Zarr's `fill_value`, is no such code: it
is 0 where nobody chose it, which is a measurement like any other.
"""

import base64
import contextlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

CODES = ("_FillValue", "missing_value")
RANGES = ("valid_range", "valid_min", "valid_max")
FACTORS = ("scale_factor", "add_offset")
UNSIGNED = "_Unsigned"
BYTES_UNPACKED = 10
"""Memory that a value takes at most while it is made: a float64 and two flags."""

AS_STORED = "; data.source.mask_and_scale=false takes the numbers as they are stored"

NAMES = (*CODES, *RANGES, *FACTORS, UNSIGNED)


class Packed:
    """An array with its attributes, whose values are made when they are asked for.

    Args:
        array: the numbers as they are stored.
        attributes: its own that are among `NAMES`.
    """

    def __init__(self, array: Any, attributes: Mapping[str, Any]) -> None:
        self.array = array
        self.attributes = attributes
        self.shape = tuple(array.shape)
        self.size = int(array.size)

    def stored(self) -> np.ndarray:
        """The numbers as they are stored."""
        return np.asarray(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values; raises `ValueError` where an attribute is not what the conventions say."""
        values = unpacked(self.stored(), self.attributes)
        return values if dtype is None else values.astype(dtype)


def unpacked(raw: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    """What numbers stand for: as they are without attributes that count, else floats with NaN where one is missing.

    Raises:
        ValueError: an attribute is not what the conventions say.
    """
    if UNSIGNED in attributes and raw.dtype.kind in "iu":
        said = attributes[UNSIGNED]
        is_unsigned = str(said.decode() if isinstance(said, bytes) else said).lower() == "true"
        raw = raw.view(raw.dtype.str.replace("i", "u") if is_unsigned else raw.dtype.str.replace("u", "i"))
    given = {name: _numbers(name, attributes[name]) for name in (*CODES, *RANGES, *FACTORS) if name in attributes}
    for name in sorted(given.keys() - CODES):
        is_pair = name == "valid_range"
        unusable = ~np.isfinite(given[name]) if name in FACTORS else np.isnan(given[name])
        if given[name].size != 1 + is_pair or unusable.any():
            number = "two numbers, the smallest and the largest" if is_pair else "one finite number"
            raise ValueError(f"attribute {name}={attributes[name]!r}: expected {number}{AS_STORED}")
    if not given:
        return raw
    missing = np.zeros(raw.shape, bool)
    for name in CODES:
        for code in given.get(name, ()):
            missing |= _is_code(raw, code, name)
    low, high = given.get("valid_range", (-np.inf, np.inf))
    low, high = given.get("valid_min", [low])[0], given.get("valid_max", [high])[0]
    is_scaled = any(name in given for name in FACTORS)
    values = raw.astype(np.float64 if is_scaled else np.result_type(raw.dtype, np.float32))
    # A range is of the stored numbers, unless these are integers and it is not: then it is of what they stand for.
    of_values = (
        is_scaled and raw.dtype.kind in "iu" and any(given[name].dtype.kind == "f" for name in RANGES if name in given)
    )
    is_limited = any(name in given for name in RANGES)
    if is_limited and not of_values:
        missing |= _outside(values, low, high)
    if is_scaled:
        values *= given.get("scale_factor", np.ones(1))[0]
        values += given.get("add_offset", np.zeros(1))[0]
    if of_values:
        missing |= _outside(values, low, high)
    values[missing] = np.nan
    return values


def _numbers(name: str, value: Any) -> np.ndarray:
    """An attribute as numbers `(n,)`; in Zarr, version 3, xarray writes floats as the base64 of their eight bytes."""
    if isinstance(value, bytes | str):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        with contextlib.suppress(ValueError):
            return np.array([float(text)])
        with contextlib.suppress(ValueError, struct.error):
            return np.array(struct.unpack("<d", base64.b64decode(text, validate=True)))
    elif (array := np.asarray(value)).dtype.kind in "iuf" and array.size:
        return array.ravel()
    raise ValueError(f"attribute {name}={value!r}: expected a number{AS_STORED}")


def _is_code(raw: np.ndarray, code: Any, name: str) -> np.ndarray:
    """Where stored numbers are a code, which may be written in another type than they have."""
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return raw == raw.dtype.type(code)
    if np.isnan(code):
        return np.zeros(raw.shape, bool)
    if (
        raw.dtype.kind == "b"
        or code != np.floor(code)
        or not np.iinfo(raw.dtype).min <= code <= np.iinfo(raw.dtype).max
    ):
        raise ValueError(f"attribute {name}={code}: expected a number that {raw.dtype} holds{AS_STORED}")
    return raw == raw.dtype.type(int(code))


def _outside(values: np.ndarray, low: float, high: float) -> np.ndarray:
    kind = values.dtype.type
    return (values < kind(low)) | (values > kind(high))
