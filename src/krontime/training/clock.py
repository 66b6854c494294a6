"""The clock that a limit on training time is kept with."""

import time

import torch


def now_s(device: torch.device, *, num_processes: int = 1) -> float:
    """Read a clock, in seconds; only differences of two readings mean anything.

    Where everything is computed in one thread of this process, it is the processor's time, so that
    other work on the machine costs a run no steps. Elsewhere it is wall-clock time, read once the device is done.

    Args:
        device: the one that computes.
        num_processes: how many compute or read data together.
    """
    if device.type == "cpu" and num_processes == 1 and torch.get_num_threads() == 1:
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
