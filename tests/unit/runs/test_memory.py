"""Memory of a process and of the jobs in it."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from krontime.runs import memory as module
from krontime.runs.memory import PeakMemory, peak_memory_bytes, reset_peak_memory

MB = 10**6
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the mark can be set back on Linux only")


def test_peak_memory_sees_what_was_allocated():
    reset_peak_memory()
    before = peak_memory_bytes()
    block = np.ones(200 * 2**20, dtype=np.uint8)
    del block
    assert peak_memory_bytes() - before > 150 * 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the host's mark can be reset on Linux only")
def test_a_job_does_not_inherit_the_peak_of_an_earlier_one():
    block = np.ones(200 * 2**20, dtype=np.uint8)
    del block
    before = peak_memory_bytes()
    reset_peak_memory()
    assert before - peak_memory_bytes() > 150 * 2**20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_on_cuda():
    reset_peak_memory("cuda")
    block = torch.ones(2**20, device="cuda")
    assert peak_memory_bytes("cuda") >= block.nbytes
    peak = PeakMemory()
    more = torch.ones(2**22, device="cuda")
    assert peak.num_bytes("cuda") >= more.nbytes


def in_one_block(size: int) -> None:
    np.ones(size, np.uint8)


def in_many_small_ones(size: int) -> None:
    """What the C library keeps for later when it is freed."""
    kept = [np.ones(50_000, np.uint8) for _ in range(size // 50_000)]
    del kept


def of_torch(size: int) -> None:
    torch.ones(size, dtype=torch.uint8).clone().sum()


JOBS = (in_one_block, in_many_small_ones, of_torch)


def measured(job: Callable[[int], None], size: int) -> int:
    peak = PeakMemory()
    job(size)
    result = peak.num_bytes()
    assert result is not None
    return result


@on_linux
@pytest.mark.parametrize(
    "before", [JOBS[0], *(pytest.param(job, marks=pytest.mark.slow) for job in JOBS[1:])], ids=lambda job: job.__name__
)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
def test_a_small_job_after_a_large_one_has_the_figure_that_it_has_alone(before, job):
    alone = measured(job, 50 * MB)
    large = measured(before, 300 * MB)
    after = measured(job, 50 * MB)
    assert large > 280 * MB
    assert after == pytest.approx(alone, rel=0.1)
    assert alone >= 48 * MB


@on_linux
def test_what_is_held_in_a_pause_does_not_count():
    peak = PeakMemory()
    in_one_block(60 * MB)
    with peak.paused():
        in_many_small_ones(300 * MB)
    in_one_block(20 * MB)
    assert 55 * MB < peak.num_bytes() < 90 * MB


@pytest.mark.parametrize(("marks", "expected"), [([500, 500], None), ([500, 900], 800), ([500, 501], 401)])
def test_where_the_mark_stays_a_job_is_known_if_it_is_the_largest(marks, expected, monkeypatch, tmp_path):
    actual = iter(marks)
    monkeypatch.setattr(module, "_MARK", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(module, "peak_memory_bytes", lambda *_: next(actual))
    monkeypatch.setattr(module, "_resident_bytes", lambda: 100)
    assert PeakMemory().num_bytes() == expected
