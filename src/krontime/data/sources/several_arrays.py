"""Files that hold several arrays, from anyone: MATLAB `.mat` of any version, and HDF5.

The arrays are listed first, by what the file says of them. The numbers of one are read when they are asked for, once
its size has been compared with the file and with the memory that is left.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.sources.arrays import StoredArray, reason
from krontime.data.sources.files import library_of
from krontime.data.sources.packed import BYTES_UNPACKED, NAMES, Packed
from krontime.errors import UserError

HDF5 = (".h5", ".hdf5")

_MATLAB_BYTES = {f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)}
_MATLAB_BYTES |= {"double": 8, "single": 4, "logical": 1}
"""Bytes that a number of each of MATLAB's classes takes."""


def arrays_of_file(file: Path) -> Mapping[str, Packed]:
    """The arrays of numbers of a file, by name; those of MATLAB as it shows them, and without attributes that count.

    Raises:
        UserError: the library is not installed.
        OSError: the file cannot be opened.
        ValueError: it is damaged, or none of the library's own.
    """
    try:
        return _of_hdf5(file) if file.suffix.lower() in HDF5 or _is_hdf5(file) else _of_matlab(file)
    except (UserError, OSError):
        raise
    except Exception as error:  # whatever damaged bytes lead to
        raise ValueError(reason(error)) from error


def _is_hdf5(file: Path) -> bool:
    """Whether a `.mat` file is of MATLAB 7.3, which are HDF5 behind a header of 512 bytes."""
    with open(file, "rb") as stream:
        stream.seek(512)
        return stream.read(4) == b"\x89HDF"


def _of_matlab(file: Path) -> dict[str, Packed]:
    from scipy.io import loadmat, whosmat

    def array(name: str, shape: tuple[int, ...], itemsize: int) -> Packed:
        def read() -> np.ndarray:
            return np.asarray(loadmat(file, squeeze_me=False, variable_names=[name])[name])

        stored_bytes = file.stat().st_size
        return Packed(StoredArray(shape, itemsize=itemsize, stored_bytes=stored_bytes, read=read), {})

    return {
        name: array(name, shape, _MATLAB_BYTES[kind])
        for name, shape, kind in whosmat(file)
        if kind in _MATLAB_BYTES and not name.startswith("__")  # as what MATLAB keeps of its objects is named
    }


def _of_hdf5(file: Path) -> dict[str, Packed]:
    """Arrays of numbers; those of MATLAB, whose axes run the other way in its files, turned."""
    h5py = library_of("hdf5", "h5py", needed_by="HDF5")
    held: dict[str, Packed] = {}
    is_matlab, file_bytes = file.suffix.lower() not in HDF5, file.stat().st_size

    def keep(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iufb" or item.shape is None:
            return
        if is_matlab and ("MATLAB_empty" in item.attrs or item.attrs.get("MATLAB_class") == b"char"):
            return  # sizes, and text

        def read() -> np.ndarray:
            with h5py.File(file, "r") as opened:
                values = np.asarray(opened[name][()])
            return values.T if is_matlab else values

        attributes = {} if is_matlab else {key: item.attrs[key] for key in NAMES if key in item.attrs}
        array = StoredArray(
            tuple(item.shape[::-1] if is_matlab else item.shape),
            itemsize=item.dtype.itemsize,
            # what the file says of it is a sum over chunks, which may say anything of themselves
            stored_bytes=None if item.external or item.is_virtual else min(item.id.get_storage_size(), file_bytes),
            read=read,
            unpacking_bytes=BYTES_UNPACKED if attributes else 0,
        )
        held[name] = Packed(array, attributes)

    with h5py.File(file, "r") as opened:
        opened.visititems(keep)
    return held
