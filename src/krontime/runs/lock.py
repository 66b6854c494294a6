"""Keeps a run folder to one process, by the lock that a run holds while it works there."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from krontime.errors import UserError

SUFFIX = ".lock"
_TIMEOUT_S = 1.0
"""Longer than `is_held` of another process, or the release of a run that ends just now, keeps a free lock."""


class Busy(UserError):
    """Another process is at work in a run folder."""


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder; the operating system's lock ends with the process.

    The file is removed at the end, before the lock is given up: a process that has opened it by then gets a lock on a
    file without a name, which filelock sees and answers by opening the file that has the name.

    Raises:
        Busy: another process is at work there.
        UserError: the folder can't be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(_path(run_dir))
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_TIMEOUT_S)
        Path(lock.lock_file).touch()
    except Timeout:
        raise Busy(
            f"{run_dir}: another process is training there; expected to be the only one, or another seed or config"
        ) from None
    except OSError as error:
        raise UserError(
            f"paths.output: {error.filename or run_dir} can't be written ({error.strerror or error}); expected a "
            "folder that can"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # open files can't be removed everywhere
            Path(lock.lock_file).unlink()
        lock.release()


def is_held(run_dir: Path) -> bool:
    """Say whether a process is at work in a run folder; a lock file whose process was killed does not count.

    A lock that can't be tried, as that of another user, counts.
    """
    from filelock import FileLock

    if not _path(run_dir).exists():
        return False
    lock = FileLock(_path(run_dir))
    try:
        lock.acquire(timeout=0)
    except OSError:  # held, which is a TimeoutError, or not ours to open
        return True
    lock.release()
    return False


def killed_at(run_dir: Path) -> float | None:
    """Return when a process that was killed in a run folder had begun, in Unix seconds; None where none was killed."""
    if is_held(run_dir):
        return None
    try:
        return _path(run_dir).stat().st_mtime
    except FileNotFoundError:
        return None


def _path(run_dir: Path) -> Path:
    return run_dir.with_name(run_dir.name + SUFFIX)
