"""What ends a run from outside, and which process of it writes."""

import gc
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from krontime.errors import Terminated

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Where launchers write the rank of a process, in the order in which Lightning looks."""


def is_first_rank() -> bool:
    """Whether this process is the one that writes, as far as its launcher has said."""
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    # A launcher that knows no global rank gives that within the node, and which node it is.
    return int(rank) == 0 and ("RANK" in os.environ or int(os.environ.get("NODE_RANK", 0)) == 0)


@contextmanager
def ending_on_sigterm() -> Iterator[threading.Event]:
    """Let a SIGTERM end the run as an interruption does: with a record, and without the lock left behind.

    Yields:
        Set once there was one: compiled code may answer to it with an error of its own.
    """
    came = threading.Event()

    def end(*_: object) -> None:
        came.set()
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def release(error: BaseException) -> None:
    """Free what the frames of an error hold, the network and its gradients above all, for the next job of a process."""
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()  # an error that is raised again can stand in its own chain
    while chain:
        if (link := chain.pop()) is not None and id(link) not in seen:
            seen.add(id(link))
            traceback.clear_frames(link.__traceback__)
            chain += (link.__cause__, link.__context__)
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
