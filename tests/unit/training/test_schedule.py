"""The learning rate's shape over a run."""

import math

import pytest
import torch

from krontime.training.schedule import warmup_cosine


def rates(*, total_steps: int, warmup: float, final: float, peak: float = 0.5) -> list[float]:
    """The learning rate that each step of a run uses, and the one after."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = warmup_cosine(optimizer, total_steps=total_steps, warmup=warmup, final=final)
    found = []
    for _ in range(total_steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("total_steps", [10, 100, 101])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("final", [0.0, 0.01, 0.3])
def test_it_rises_linearly_then_falls_as_a_cosine(total_steps, warmup, final):
    found = rates(total_steps=total_steps, warmup=warmup, final=final)
    start = round(warmup * total_steps)
    assert found[start] == pytest.approx(0.5)
    assert max(found) == pytest.approx(0.5)
    for step in range(start):
        assert found[step] == pytest.approx(0.5 * (step + 1) / (start + 1))
    for step in range(start, total_steps + 1):
        share = (1 + math.cos(math.pi * (step - start) / (total_steps - start))) / 2
        assert found[step] == pytest.approx(0.5 * (final + (1 - final) * share))
    assert all(a > b for a, b in zip(found[start:], found[start + 1 :], strict=False))
    assert found[-1] == pytest.approx(0.5 * final)


def test_the_first_step_is_not_wasted():
    assert rates(total_steps=100, warmup=0.1, final=0.01)[0] > 0


@pytest.mark.parametrize("warmup", [0.0, 1.0])
@pytest.mark.parametrize("total_steps", [1, 2])
def test_very_short_runs(total_steps, warmup):
    found = rates(total_steps=total_steps, warmup=warmup, final=0.0)
    assert all(0 <= rate <= 0.5 for rate in found)
    assert found[0] > 0


def test_it_stays_down_after_the_last_step():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_cosine(optimizer, total_steps=5, warmup=0.2, final=0.1)
    for _ in range(20):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_run_out_of_time_comes_to_the_end_of_the_schedule():
    def rates_in_time(shares: list[float]) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        clock = iter(shares)
        schedule = warmup_cosine(
            optimizer, total_steps=1000, warmup=0.1, final=0.01, time_share=lambda: next(clock, shares[-1])
        )
        found = [optimizer.param_groups[0]["lr"]]
        for _ in shares[1:]:
            optimizer.step()
            schedule.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    slow = rates_in_time([share / 20 for share in range(21)])  # 20 steps instead of 1,000
    assert slow[2] == pytest.approx(1.0)
    assert slow[-1] == pytest.approx(0.01)
    assert slow[0] < slow[1] < slow[2]
    assert slow[2:] == sorted(slow[2:], reverse=True)
    fast = rates_in_time([0.0] * 10)
    assert fast == pytest.approx(rates(total_steps=1000, warmup=0.1, final=0.01, peak=1.0)[:10])
