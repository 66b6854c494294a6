"""One process of the benchmark: the step times or the peak memory of one network at one length, and nothing else.

Run as `python -m krontime.commands.benchmark_cell`, with a job as JSON on standard input; the result is written to the
file that the job names. It imports little, so that a process starts fast and its memory floor is low.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from krontime.data.series import SeriesSpec
from krontime.runs.memory import peak_memory_bytes, release_free_memory, reset_peak_memory
from krontime.storage import replacing
from krontime.training import build

MIN_TIMED = 2
"""Steps that are timed however long they take."""

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
"""PyTorch's for fused attention."""

_PEAK_TRIES = 5


def main() -> None:
    """Measure the job on standard input and write what came of it, errors included, to its file."""
    job = json.load(sys.stdin)
    with suppress(OSError):  # where memory runs out all the same, this process has to go, and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    started_at = datetime.now(UTC)
    try:
        result = {"status": "ok", "message": None, **(peak(job) if job["measure"] == "peak" else measure(job))}
    except Exception as error:
        status = "out_of_memory" if is_out_of_memory(error) else "failed"
        message = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        result = {"status": status, "message": message, "traceback": traceback.format_exc()}
    result |= {"started_at": started_at.isoformat(), "finished_at": datetime.now(UTC).isoformat()}
    with replacing(Path(job["result"])) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """Time steps of one network, or measure the memory that they take.

    Memory is counted from a floor that is read after the network, its optimiser and a batch were made and a short
    series was learned from: libraries, parameters, gradients, the optimiser's state and the batch are not in it.

    Args:
        job: `measure` (`time` or `memory`), `model` (plain config of the network), `num_channels`, `length`,
            `num_classes`, `batch_size`, `device` (torch's name), `precision` (`32-true` or `bf16-mixed`), `warmup` and
            `steps` (numbers of steps), `measure_s` (after this many seconds no further step is begun, `MIN_TIMED`
            excepted), `memory_limit_bytes` (maximum host memory of this process, or None) and, for a network that is
            to be compiled, `mode` (`compiled`).

    Returns:
        `num_parameters` and, for `time`, `train_ms` and `inference_ms` (lists, one number a step), for `memory`, and on
        a CUDA device for what is not compiled, `peak_memory_bytes` (of a training step), `inference_peak_memory_bytes`
        and `floor_bytes`.
        On a CUDA device also `attention_backend`, the fastest of PyTorch's for fused attention.

    Raises:
        MemoryError, RuntimeError: memory ran out; see `is_out_of_memory`.
    """
    device, length, batch_size = torch.device(job["device"]), job["length"], job["batch_size"]
    torch.manual_seed(0)
    names = tuple(str(label) for label in range(job["num_classes"]))
    network: Any = build.network({"model": job["model"]}, SeriesSpec(job["num_channels"], length, len(names), names))
    series = torch.randn(batch_size, job["num_channels"], length)
    with torch.no_grad():
        network.fit_tokens(series)
    network, series = network.to(device), series.to(device)
    labels = torch.randint(len(names), (batch_size,), device=device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=job["precision"] == "bf16-mixed")

    def train_step(x: torch.Tensor) -> None:
        network.train()
        optimizer.zero_grad()
        with autocast:
            logits = network(x)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    @torch.no_grad()
    def infer(x: torch.Tensor) -> None:
        network.eval()
        with autocast:
            network(x)

    short = series[..., : max(length // 16, min(length, 256))]
    infer(short)
    train_step(short)
    floor = _settled_memory(device)
    if device.type == "cpu" and job["memory_limit_bytes"] is not None:
        _limit_growth(job["memory_limit_bytes"] - floor)

    result: dict[str, Any] = {"num_parameters": sum(parameter.numel() for parameter in network.parameters())}
    with ExitStack() as stack:
        if device.type == "cuda":
            result["attention_backend"] = backend = fastest_backend(lambda: train_step(series))
            stack.enter_context(sdpa_kernel(BACKENDS[backend]))
        if job.get("mode") == "compiled":
            network.compile(fullgraph=True, mode="reduce-overhead" if device.type == "cuda" else None)
        if job["measure"] == "time":
            result["inference_ms"] = _timed(lambda: infer(series), job)
            result["train_ms"] = _timed(lambda: train_step(series), job)
            if device.type == "cpu" or job.get("mode") == "compiled":
                return result  # on a CUDA device a captured graph allocates nothing when it is replayed
        _settled_memory(device)
        infer(series)
        result["inference_peak_memory_bytes"] = max(0, _peak_memory(device) - floor)
        _settled_memory(device)
        train_step(series)
    return result | {"peak_memory_bytes": max(0, _peak_memory(device) - floor), "floor_bytes": floor}


def fastest_backend(step: Callable[[], None]) -> str:
    """The name of PyTorch's backend of fused attention that a step is fastest with; one without attention takes any.

    Raises:
        RuntimeError: the step fails with each of them.
    """
    times_s: dict[str, float] = {}
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                step()  # which may compile
                _synchronize()
                started_s = time.perf_counter()
                step()
                _synchronize()
                times_s[name] = time.perf_counter() - started_s
        except RuntimeError as error:  # it takes no such tensors, or memory ran out
            failure = error
    if not times_s:
        raise failure
    return min(times_s, key=lambda name: times_s[name])


def peak(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a device does at best: products of large square matrices, and copies of what no cache holds.

    Args:
        job: `device` and `precision`, as for `measure`.

    Returns:
        `gemm_flops_per_s` (a multiply-add counts as two) and `stream_bytes_per_s` (read and written), the best of
        several tries each.
    """
    device = torch.device(job["device"])
    dtype = torch.bfloat16 if job["precision"] == "bf16-mixed" else torch.float32
    size, num_values = (8192, 2**28) if device.type == "cuda" else (2048, 2**25)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.ones(num_values, device=device)
    target = torch.empty_like(source)
    product_s = _best_s(lambda: torch.mm(a, b))
    copy_s = _best_s(lambda: target.copy_(source))
    return {"gemm_flops_per_s": 2 * size**3 / product_s, "stream_bytes_per_s": 2 * source.nbytes / copy_s}


def _best_s(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few tries, after one that doesn't count."""
    times_s = []
    for _ in range(_PEAK_TRIES + 1):
        _synchronize()
        started_s = time.perf_counter()
        work()
        _synchronize()
        times_s.append(time.perf_counter() - started_s)
    return min(times_s[1:])


def _synchronize() -> None:
    """Wait for a device that works on its own."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on a device."""
    words = ("can't allocate memory", "Cannot allocate memory", "bad_alloc")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def _timed(step: Callable[[], None], job: Mapping[str, Any]) -> list[float]:
    """Milliseconds of each step after the warm-up."""
    durations_ms: list[float] = []
    warmup, begun = job["warmup"], time.perf_counter()
    while True:
        started = time.perf_counter()
        step()
        _synchronize()
        ended = time.perf_counter()
        is_late = ended - begun > job["measure_s"]
        if warmup > 0:
            warmup = 0 if is_late else warmup - 1
            if warmup == 0:
                begun = ended
            continue
        durations_ms.append((ended - started) * 1000)
        if len(durations_ms) >= job["steps"] or (is_late and len(durations_ms) >= MIN_TIMED):
            return durations_ms


def _settled_memory(device: torch.device) -> int:
    """Give back what is free, count peaks afresh, and return the memory that is in use."""
    release_free_memory()  # which would hide a part of the next peak
    reset_peak_memory(device.type)
    return _peak_memory(device)


def _peak_memory(device: torch.device) -> int:
    peak = peak_memory_bytes(device.type)
    assert peak is not None
    return peak


def _limit_growth(num_bytes: int) -> None:
    """Let allocations fail once this process has grown by `num_bytes`, on Linux.

    Raises:
        MemoryError: nothing is left to grow into.
    """
    if num_bytes <= 0:
        raise MemoryError("the libraries and the network alone take more than the limit")
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    address_space = pages * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (address_space + num_bytes, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
