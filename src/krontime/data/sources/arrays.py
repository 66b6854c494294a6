"""NumPy's `.npy` and `.npz` files from anyone: what a header declares is checked before memory is taken for it.

No object is ever unpickled, nothing is extracted to a folder, and a few bytes cannot claim a machine's memory: an array
must lie whole in its file, an archive member may not inflate beyond what recordings do, and both must fit in memory.
"""

import io
import math
import os
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from krontime.data.memory import require_memory

MAX_HEADER_BYTES = 10_000
"""Longest header that is parsed, as in NumPy."""

MAX_RATIO = 200
FREE_BYTES = 2**28
"""A compressed member may inflate to this many times its size, and to this many bytes in any case."""

MAX_EMPTY = 2**20
"""Maximum that the other sizes of an array may come to where one of its sizes is 0."""

MIN_SUSPICIOUS = 4
"""Fewest channels that may be points in truth; a series of fewer points is not worth the question."""

Layout = Literal["channels_first", "channels_last"]

BYTES_OF_A_VALUE = 5
"""Memory that a value takes besides the array it is read into: one float32 and one flag."""


class Header(NamedTuple):
    """What an `.npy` file says of itself, and where its values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int


class StoredArray:
    """An array of a file, whose numbers are read when they are asked for.

    Args:
        shape: of the array.
        itemsize: bytes of each number.
        stored_bytes: room that it takes in the file, at most; None where it lies in other files, which may be any of
            this machine, so that it is not read.
        read: reads the numbers.
        unpacking_bytes: memory that each number takes besides, while what it stands for is made.

    Attributes:
        shape: of the array.
        size: how many numbers it has.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        itemsize: int,
        stored_bytes: int | None,
        read: Callable[[], np.ndarray],
        unpacking_bytes: int = 0,
    ) -> None:
        self.shape = shape
        self.size = math.prod(shape)
        self._itemsize = itemsize
        self._stored_bytes = stored_bytes
        self._read = read
        self._unpacking_bytes = unpacking_bytes

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The numbers.

        Raises:
            ValueError: they are damaged, lie in other files, or are too many to be true or for the memory.
        """
        if self._stored_bytes is None:
            raise ValueError("its numbers lie in other files; expected them in this one")
        if self.size * self._itemsize > max(FREE_BYTES, MAX_RATIO * self._stored_bytes):
            raise ValueError(
                f"it declares the shape {self.shape}, which is over {MAX_RATIO} times the {self._stored_bytes:,} bytes "
                "that it has"
            )
        require_memory(self.size * (self._itemsize + self._unpacking_bytes + BYTES_OF_A_VALUE))
        try:
            values = self._read()
        except Exception as error:  # whatever damaged numbers lead to
            raise ValueError(reason(error)) from error
        return values if dtype is None else values.astype(dtype)


def read_npy(path: Path) -> np.ndarray:
    """Memory-map an array that is to be read whole.

    Raises:
        ValueError: it is no plain array, or its header does not fit the file or this machine.
    """
    require_memory(math.prod(_header_of(path).shape) * BYTES_OF_A_VALUE)  # before it is mapped, which may be limited
    return map_npy(path)


def map_npy(path: Path) -> np.ndarray:
    """Memory-map an array, which need not fit in memory.

    Raises:
        ValueError: it is no plain array, or its header does not fit the file.
    """
    _header_of(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _header_of(path: Path) -> Header:
    with open(path, "rb") as stream:
        return read_header(stream, path.stat().st_size)


def read_header(stream: IO[bytes], size: int) -> Header:
    """Parse the header of an array.

    Args:
        stream: at the beginning of the array.
        size: bytes that it has.

    Raises:
        ValueError: the header is damaged, declares Python objects, or more values than there are bytes for.
    """
    begin = io.BytesIO(stream.read(MAX_HEADER_BYTES + 12))  # 12: the longest prefix
    version = np.lib.format.read_magic(begin)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is of format version {version}, which only arrays with named fields need")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(begin)
    except Exception as error:  # whatever a damaged literal leads to
        raise ValueError(f"its header cannot be read ({type(error).__name__})") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded: save plain numbers or text")
    if dtype.fields is not None or dtype.subdtype is not None:
        raise ValueError(f"it is of type {dtype}: expected plain numbers or text")
    held = size - begin.tell()
    claimed = math.prod(shape) * max(1, dtype.itemsize)
    if any(n < 0 for n in shape) or claimed > held or math.prod(n for n in shape if n) > max(held, MAX_EMPTY):
        raise ValueError(f"its header declares the shape {shape} of {dtype}, and {max(0, held):,} bytes follow")
    return Header(shape, dtype, begin.tell())


def read_npz(path: Path, keys: Collection[str]) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Read some arrays of an `.npz` archive.

    Args:
        path: the file.
        keys: names of the arrays to read, those that are there.

    Returns:
        The arrays, the names of all that the file holds, and a line for each array that cannot be read.

    Raises:
        ValueError: the file is no such archive.
    """
    arrays, problems = {}, []
    with open(path, "rb") as file:
        if file.read(6) == np.lib.format.MAGIC_PREFIX:
            raise ValueError("it is a single array")
        file.seek(0)
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises whatever the first damaged byte leads to
            raise ValueError(reason(error)) from error
        with archive:
            held = [name.removesuffix(".npy") for name in archive.namelist()]
            for key in keys:
                if key in held:
                    try:
                        arrays[key] = _read_member(archive, key, os.fstat(file.fileno()).st_size)
                    except Exception as error:
                        problems.append(f"{key} cannot be read ({reason(error)})")
    return arrays, held, problems


def _read_member(archive: zipfile.ZipFile, key: str, file_size: int) -> np.ndarray:
    member = archive.getinfo(f"{key}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError("it is encrypted, or compressed in another way than NumPy's")
    packed = min(member.compress_size, file_size)
    if member.file_size > max(packed, FREE_BYTES) and member.file_size > MAX_RATIO * packed:
        raise ValueError(
            f"its {packed:,} bytes declare to inflate to {member.file_size:,}, over {MAX_RATIO} times as much; "
            "np.savez, which does not compress, writes a file that is read"
        )
    with archive.open(member) as stream:
        header = read_header(stream, member.file_size)
    count = math.prod(header.shape)
    require_memory(count * (header.dtype.itemsize + BYTES_OF_A_VALUE))
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def channels_first(values: np.ndarray, layout: Layout | None, key: str) -> np.ndarray:
    """Values as `(series, channels, points)`; an array of other than two or three dimensions stays as it is.

    Args:
        values: `(series, points)` of one channel, or of three dimensions.
        layout: which axis has the channels; None for the second, unless there are more channels than points.
        key: config key of `layout`, for the message.

    Raises:
        ValueError: the second axis is longer than the third, as where the channels come last, and nobody said so.
    """
    if values.ndim == 2:
        return values[:, None, :]
    if values.ndim != 3:
        return values
    if layout == "channels_last":
        return values.transpose(0, 2, 1)
    _, second, third = values.shape
    if layout is None and second > third and second >= MIN_SUSPICIOUS:
        raise ValueError(
            f"has shape {values.shape}: read as (series, channels, points), it has {second} channels of {third} "
            f"point{'s' * (third != 1)}; expected {key}=channels_last for (series, points, channels), or "
            f"{key}=channels_first where it is so"
        )
    return values


def shape_notes(values: np.ndarray | None, layout: Layout | None) -> tuple[str, ...]:
    """What was taken for granted of an array of series, after `channels_first`."""
    if values is None:
        return ()
    said = {"channels_last": "channels last", "channels_first": "channels first"}
    notes = [said[layout]] if layout is not None else []
    if values.dtype.kind in "iub":
        notes.append(f"values of type {values.dtype}")
    return tuple(notes)


def reason(error: BaseException) -> str:
    """What went wrong in a library, with the kind of error that it raised."""
    text = str(error).strip()
    return text if type(error) is ValueError else f"{type(error).__name__}: {text}" if text else type(error).__name__
