"""Handles the signals that end a run from outside, and finds which of its processes writes."""

import gc
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from krontime.errors import Terminated, ending_signals

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables with the rank of a process, in the order in which Lightning reads them."""


def is_first_rank() -> bool:
    """Say whether this process is the one that writes, as far as its launcher has said."""
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    # A launcher that knows no global rank gives that within the node, and which node it is.
    return _number(rank) == 0 and ("RANK" in os.environ or _number(os.environ.get("NODE_RANK", "0")) == 0)


def _number(rank: str) -> int:
    """Parse a rank; 0 for what is none."""
    return int(rank) if rank.isdecimal() else 0


@contextmanager
def ending_on_signals() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP end the run as an interruption does: with a record, and without the lock left behind.

    Yields:
        The numbers of the signals that came: compiled code may answer to one with an error of its own.
    """
    came: list[int] = []

    def end(number: int, *_: object) -> None:
        came.append(number)
        raise Terminated(number)

    with _handled(ending_signals(), end):
        yield came


@contextmanager
def holding_back(came: list[int]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP be noted within the block, and nothing else: what is written there is written whole.

    Args:
        came: gets the numbers of those that come.
    """
    with _handled(ending_signals(), lambda number, *_: came.append(number)):
        yield


@contextmanager
def _handled(numbers: Sequence[int], handler: Callable[..., None]) -> Iterator[None]:
    """Handle signals within the block; outside the main thread they stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, outer in zip(numbers, before, strict=True):
            signal.signal(number, outer)


def free_memory_of(error: BaseException) -> None:
    """Free what the frames of an error hold, above all the network and its gradients, for the next job."""
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()  # an error that is raised again can stand in its own chain
    while chain:
        if (link := chain.pop()) is not None and id(link) not in seen:
            seen.add(id(link))
            traceback.clear_frames(link.__traceback__)
            chain += (link.__cause__, link.__context__)
    gc.collect()
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class Stopping:
    """Ends what waits for input at SIGTERM, SIGHUP or SIGINT, and nothing else: what is being computed is finished.

    Attributes:
        came: whether there was a signal.
    """

    def __init__(self) -> None:
        self.came = False
        self._is_waiting = False

    @classmethod
    @contextmanager
    def on_signals(cls) -> Iterator["Stopping"]:
        """Handle the signals so within the block; outside the main thread they stay as they are."""
        stopping = cls()
        with _handled([*ending_signals(), signal.SIGINT], stopping._end):
            yield stopping

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal end the block, without an error."""
        try:
            self._is_waiting = True
            if self.came:
                raise _Stopped
            yield
        except _Stopped:
            pass
        finally:
            self._is_waiting = False

    def _end(self, *_: object) -> None:
        self.came = True
        if self._is_waiting:
            self._is_waiting = False
            raise _Stopped


class _Stopped(BaseException):
    """Raised where a signal finds `Stopping` waiting."""
