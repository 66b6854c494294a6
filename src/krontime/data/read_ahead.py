"""Reads several files at once, and gives them out in their order."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from krontime.console import each

MAX_THREADS = 8
"""Each holds a file in memory, and what Python does between calls of a library is done by one of them at a time."""

MAX_BYTES = 1 << 30
"""Memory that all threads together take, about."""

T = TypeVar("T")
R = TypeVar("R")


def num_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_ahead(
    title: str, items: Sequence[T], read: Callable[[T], R], *, num_bytes: int | None
) -> Iterator[tuple[T, Callable[[], R]]]:
    """Read each of some items, with the progress that is made; those that follow are read meanwhile.

    Args:
        title: see `progress`.
        items: such as files.
        read: reads one; has to hold no lock for long, such as Python's own, for threads to gain anything.
        num_bytes: memory that the largest takes while it is read, about, which bounds the number of threads as that of
            processors does; None to read an item when it is asked for.

    Yields:
        An item, in the given order, and a function that returns what was read of it or raises what reading it raised.
        Of those that follow, as many as there are threads are in memory at most.
    """
    num_threads = 1
    if num_bytes is not None:
        num_threads = min(len(items), num_cpus(), MAX_THREADS, MAX_BYTES // max(num_bytes, 1))
    if num_threads < 2:
        for item in each(title, items):
            yield item, partial(read, item)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        left = iter(items)
        ahead: deque[Future[R]] = deque(pool.submit(read, item) for item in itertools.islice(left, num_threads))
        try:
            for item in each(title, items):
                first = ahead.popleft()
                ahead.extend(pool.submit(read, later) for later in itertools.islice(left, 1))
                yield item, first.result
        finally:
            pool.shutdown(cancel_futures=True)
