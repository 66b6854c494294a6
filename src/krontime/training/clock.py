"""The clock that a limit on training time is kept with."""

import time

import torch


def now_s(device: torch.device, *, num_processes: int = 1) -> float:
    """Seconds on a clock that only differences of two readings are taken of.

    Where everything is computed in one thread of this process, it is the processor's time: what else runs on the
    machine then takes no steps away from a run. Elsewhere it is the wall's, once the device has done what it was given.

    Args:
        device: where it is computed.
        num_processes: that compute or read together.
    """
    if device.type == "cpu" and num_processes == 1 and torch.get_num_threads() == 1:
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
