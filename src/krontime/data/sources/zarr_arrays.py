"""Zarr stores from anyone: a folder of arrays in chunks, of version 2 or 3 of the format.

What a store says of itself is checked before the library sees it: it may name codecs that unpickle, or any that is
installed, and shapes beyond what its chunks hold.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from krontime.data.sources.arrays import StoredArray, reason
from krontime.data.sources.files import library_of
from krontime.data.sources.packed import BYTES_UNPACKED, CODES, NAMES, Packed

SUFFIX = ".zarr"

CODECS = (
    *("adler32", "blosc", "bytes", "crc32", "crc32c", "delta", "fixedscaleoffset", "fletcher32", "gzip", "lz4"),
    *("sharding_indexed", "shuffle", "transpose", "zlib", "zstd"),
)
"""Those that are followed, without the prefix `numcodecs.` that some have in version 3."""

NUMBERS = frozenset(f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)) | {"bool"}
Version = Literal[2, 3]

MAX_METADATA_BYTES = 1 << 24


def arrays_of(store: Path) -> dict[str, Packed]:
    """The arrays of numbers of a store, by their paths in it.

    Raises:
        UserError: the library is not installed.
        ValueError: it is no store, or what it says of itself is damaged or not followed.
    """
    library_of("zarr", "zarr", needed_by="Zarr")
    held = {}
    for folder, version in _array_folders(store):
        name = "/" if folder == store else folder.relative_to(store).as_posix()
        about = _metadata(folder / (".zarray" if version == 2 else "zarr.json"))
        if not _is_of_numbers(about):
            continue
        try:
            if strange := sorted(set(_codecs(about)).difference(CODECS)):
                raise ValueError(f"it is stored with {strange[0]!r}; expected one of {', '.join(CODECS)}")
            held[name] = _array(folder, version)
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{name}: its metadata are damaged ({reason(error)})") from error
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if not held:
        raise ValueError("it holds no arrays of numbers in Zarr's format, version 2 or 3")
    return held


def _array(folder: Path, version: Version) -> Packed:
    """An array of a store; raises `ValueError` where it cannot be opened."""
    import zarr

    try:
        array: Any = zarr.open_array(folder, mode="r", zarr_format=version)
        attributes = dict(array.attrs)
        shape, itemsize = tuple(array.shape), array.dtype.itemsize
    except Exception as error:  # whatever damaged metadata lead to
        raise ValueError(reason(error)) from error
    # In version 2 xarray, whose mark the names of dimensions are, keeps a `_FillValue` as `fill_value`. Otherwise,
    # and where it is 0, that is what chunks hold that were never written, and no value equal to it is missing.
    is_of_xarray = version == 2 and "_ARRAY_DIMENSIONS" in attributes
    if is_of_xarray and (code := array.fill_value) is not None and code != 0:
        attributes.setdefault(CODES[0], code)
    known = {key: value for key, value in attributes.items() if key in NAMES}
    stored = StoredArray(
        shape,
        itemsize=itemsize,
        stored_bytes=sum(size for _, size, _ in listed(folder)),
        read=lambda: np.asarray(array[...]),
        unpacking_bytes=BYTES_UNPACKED if known else 0,
    )
    return Packed(stored, known)


def listed(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and modification time of every file below a folder, by name."""
    files = [file for top, _, names in os.walk(folder) for name in names if (file := Path(top, name)).exists()]
    return sorted(
        (file.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns)
        for file in files
        for status in [file.stat()]
    )


def _array_folders(store: Path) -> Iterator[tuple[Path, Version]]:
    """Each folder of an array with the version of its format, in the order of their names."""
    for top, folders, files in os.walk(store):
        folders.sort()
        if ".zarray" in files:
            yield Path(top), 2
        elif "zarr.json" in files and _metadata(Path(top, "zarr.json")).get("node_type") == "array":
            yield Path(top), 3
        else:
            continue
        folders.clear()  # of chunks


def _metadata(file: Path) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            about = json.loads(stream.read(MAX_METADATA_BYTES))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is damaged ({reason(error)})") from error
    if not isinstance(about, dict):
        raise ValueError(f"{file.name} is damaged (it holds {type(about).__name__})")
    return about


def _is_of_numbers(about: dict[str, Any]) -> bool:
    if "data_type" in about:
        return isinstance(about["data_type"], str) and about["data_type"] in NUMBERS
    try:
        return isinstance(about.get("dtype"), str) and np.dtype(about["dtype"]).name in NUMBERS
    except (TypeError, ValueError):
        return False


def _codecs(about: dict[str, Any]) -> Iterator[str]:
    """Names of all codecs of an array, those within others included."""
    for codec in [about.get("compressor"), *(about.get("filters") or [])]:
        if codec is not None:
            yield str(codec["id"])
    for codec in about.get("codecs") or []:
        yield str(codec["name"]).removeprefix("numcodecs.")
        for key in ("codecs", "index_codecs"):
            yield from _codecs({"codecs": (codec.get("configuration") or {}).get(key)})
