"""A file of values that grows while they are read."""

from typing import BinaryIO

import numpy as np


class ValuesFile:
    """A one-dimensional `.npy` file that grows; its header has room for any length.

    Args:
        file: opened for writing, empty.

    Attributes:
        dtype: of the values; None before the first.
        count: how many values there are.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.dtype: np.dtype | None = None
        self.count = 0

    def append(self, values: np.ndarray) -> None:
        """Write an array after those before, in its own order of elements; all are of one type."""
        if self.dtype is None:
            self.dtype = values.dtype
            self._write_header()
        assert values.dtype == self.dtype
        self.file.write(np.ascontiguousarray(values).data)
        self.count += values.size

    def finish(self) -> None:
        """Write how many values there are."""
        self.dtype = self.dtype or np.dtype(np.float32)
        self.file.seek(0)
        self._write_header()
        self.file.flush()

    def _write_header(self) -> None:
        assert self.dtype is not None
        descr = np.lib.format.dtype_to_descr(self.dtype)
        np.lib.format.write_array_header_1_0(
            self.file, {"descr": descr, "fortran_order": False, "shape": (self.count,)}
        )
