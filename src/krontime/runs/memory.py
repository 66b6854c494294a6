"""Measures how much memory a process held at most, and one job in it, whatever ran before."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from krontime.data.memory import peak_resident_bytes

_MARK = Path("/proc/self/clear_refs")
"""File to which Linux takes a written `5` as: forget the peak memory of this process."""


class PeakMemory:
    """The peak memory of a job, beyond what its process held when the job began.

    On the host it is resident memory: neither the interpreter and its libraries nor what earlier jobs of a sweep left
    counts, so that a job in a sweep has the figure that it has alone. Memory that was freed before is given back to the
    system first, and the high-water mark of the process is set back, which Linux can; elsewhere the peak is known where
    it is higher than that of all jobs before. On a CUDA device it is what torch allocated.
    """

    def __init__(self) -> None:
        self._highest = 0
        self._reset()
        self._before = _resident_bytes()
        self._mark_before = 0 if _MARK.exists() else peak_memory_bytes() or 0

    def num_bytes(self, device: "str | torch.device" = "cpu") -> int | None:
        """Return the peak up to now, in bytes; None where the system does not say.

        Args:
            device: where the job is computed, or torch's name of it.
        """
        if torch.device(device).type == "cuda":
            return peak_memory_bytes(device)
        mark = peak_memory_bytes() or 0
        if mark <= self._mark_before and not self._highest:
            return None
        return max(self._highest, mark - self._before, 0)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of the peak what is held within the block, if it is freed there."""
        self._highest = self.num_bytes() or 0
        try:
            yield
        finally:
            self._reset()

    def _reset(self) -> None:
        """Give freed memory back to the system, and forget the peak."""
        gc.collect()
        release_free_memory()
        for device in range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ():
            reset_peak_memory(f"cuda:{device}")
        reset_peak_memory()


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def release_free_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak_memory(device: "str | torch.device" = "cpu") -> None:
    """Start counting `peak_memory_bytes` afresh; on the host this works on Linux only.

    Args:
        device: the one in use, or torch's name of it.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.init()  # else a device that is named by its number is not known yet
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        _MARK.write_text("5")


def peak_memory_bytes(device: "str | torch.device" = "cpu") -> int | None:
    """Return the peak memory of this process since the last reset, in bytes.

    It is what torch allocated on a CUDA device, else resident memory, which includes the interpreter and its libraries,
    not data workers. None where the operating system does not say.

    Args:
        device: the one in use, or torch's name of it.
    """
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_resident_bytes()
