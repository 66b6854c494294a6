"""The memory that this process can still have (of the machine, its control group, its own limits), and had at most."""

import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

_ROOT = Path("/")


def require_memory(num_bytes: int) -> None:
    """Refuse what cannot fit.

    Raises:
        ValueError: it takes more than is available.
    """
    available = available_memory_bytes()
    if num_bytes > available:
        raise ValueError(f"it takes {num_bytes / 2**30:,.1f} GiB of memory, and {available / 2**30:,.1f} are available")


def available_memory_bytes(root: Path = _ROOT) -> int:
    """Memory that can be had without swapping: the machine's, or less where a limit is nearer.

    Limits are those of the control groups (version 1 and 2) that the process is in, as containers and SLURM set them,
    and of the process itself (`ulimit -v`, `ulimit -d`).

    Args:
        root: folder that `proc` and `sys` lie in.
    """
    return max(0, min([psutil.virtual_memory().available, *_left_in_groups(root), *_left_to_process()]))


def peak_resident_bytes() -> int | None:
    """The peak resident memory of this process in bytes, libraries included; None where the system does not say."""
    try:
        # Unlike getrusage's, this mark can be set back and is not inherited from the parent process.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def mapped_file_bytes() -> int:
    """What is resident of files that this process maps, its libraries included; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[2]) * mmap.PAGESIZE
    except OSError:  # not Linux
        return 0


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each memory limit of the process's control groups, and of those above them, leaves."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        hierarchy, controllers, group = [*line.split(":", 2), "", ""][:3]
        if hierarchy == "0" and not controllers:
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            mount = root / "sys/fs/cgroup/memory"
        else:
            continue
        # In a container the path may be the host's, while the container's own group lies at the top.
        below = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(below), -1, -1):
            if (left := _left_in(mount.joinpath(*below[:depth]), *names)) is not None:
                yield left


def _left_in(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """What one control group leaves; None where it has no limit.

    Its usage counts the cache of files, which is given up where memory is short.
    """
    try:
        allowed, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit, usage))
    except (OSError, ValueError):  # "max"
        return None
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        used -= int(next(line.split()[1] for line in lines if line.split()[:1] == [reclaimable]))
    except (OSError, ValueError, StopIteration, IndexError):
        pass
    return allowed - max(0, used)


def _left_to_process() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    memory = psutil.Process().memory_info()
    for limit, used in ((resource.RLIMIT_AS, memory.vms), (resource.RLIMIT_DATA, getattr(memory, "data", 0))):
        allowed = resource.getrlimit(limit)[0]
        if allowed != resource.RLIM_INFINITY:
            yield allowed - used
