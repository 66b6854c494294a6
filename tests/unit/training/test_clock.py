"""The clock of a limit on training time."""

import time

import pytest
import torch

from krontime.training import clock

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def clocks(monkeypatch):
    """A wall clock and a processor's that can be told apart."""
    monkeypatch.setattr(time, "perf_counter", lambda: 1000.0)
    monkeypatch.setattr(time, "process_time", lambda: 1.0)


def test_one_thread_is_measured_by_the_processor_whatever_else_runs(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)

    assert clock.now_s(CPU) == 1.0


@pytest.mark.parametrize(("num_threads", "num_processes"), [(2, 1), (1, 2)])
def test_several_are_measured_by_the_wall(monkeypatch, num_threads, num_processes):
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)

    assert clock.now_s(CPU, num_processes=num_processes) == 1000.0


def test_processor_time_is_that_of_all_starts_of_a_run(monkeypatch):
    first, second, third = (clock.ProcessorTimer() for _ in range(3))
    first.on_train_start(None, None)
    monkeypatch.setattr(time, "process_time", lambda: 5.0)
    assert first.seconds == 4
    second.on_load_checkpoint(None, None, {"callbacks": {second.state_key: None}})
    second.load_state_dict(first.state_dict())
    second.on_train_start(None, None)
    monkeypatch.setattr(time, "process_time", lambda: 7.0)
    second.on_train_end(None, None)
    monkeypatch.setattr(time, "process_time", lambda: 9.0)
    assert second.seconds == 6
    third.on_load_checkpoint(None, None, {"callbacks": {}})
    third.on_train_start(None, None)
    third.on_train_end(None, None)
    assert third.seconds is None
