"""The learning rate's shape over a run."""

import math

import pytest
import torch

from krontime.training.schedule import warmup_cosine


def rates(*, total_steps: int, warmup_fraction: float, min_lr_ratio: float, peak: float = 0.5) -> list[float]:
    """The learning rate that each step of a run uses, and the one after."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = warmup_cosine(
        optimizer, total_steps=total_steps, warmup_fraction=warmup_fraction, min_lr_ratio=min_lr_ratio
    )
    lr = []
    for _ in range(total_steps + 1):
        lr.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return lr


@pytest.mark.parametrize("total_steps", [10, 100, 101])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("min_lr_ratio", [0.0, 0.01, 0.3])
def test_it_rises_linearly_then_falls_as_a_cosine(total_steps, warmup_fraction, min_lr_ratio):
    lr = rates(total_steps=total_steps, warmup_fraction=warmup_fraction, min_lr_ratio=min_lr_ratio)
    start = round(warmup_fraction * total_steps)
    assert lr[start] == pytest.approx(0.5)
    assert max(lr) == pytest.approx(0.5)
    for step in range(start):
        assert lr[step] == pytest.approx(0.5 * (step + 1) / (start + 1))
    for step in range(start, total_steps + 1):
        fraction = (1 + math.cos(math.pi * (step - start) / (total_steps - start))) / 2
        assert lr[step] == pytest.approx(0.5 * (min_lr_ratio + (1 - min_lr_ratio) * fraction))
    assert all(a > b for a, b in zip(lr[start:], lr[start + 1 :], strict=False))
    assert lr[-1] == pytest.approx(0.5 * min_lr_ratio)


def test_the_first_step_is_not_wasted():
    assert rates(total_steps=100, warmup_fraction=0.1, min_lr_ratio=0.01)[0] > 0


@pytest.mark.parametrize("warmup_fraction", [0.0, 1.0])
@pytest.mark.parametrize("total_steps", [1, 2])
def test_very_short_runs(total_steps, warmup_fraction):
    lr = rates(total_steps=total_steps, warmup_fraction=warmup_fraction, min_lr_ratio=0.0)
    assert all(0 <= rate <= 0.5 for rate in lr)
    assert lr[0] > 0


def test_it_stays_down_after_the_last_step():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_cosine(optimizer, total_steps=5, warmup_fraction=0.2, min_lr_ratio=0.1)
    for _ in range(20):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_run_out_of_time_comes_to_the_end_of_the_schedule():
    def rates_in_time(fractions: list[float]) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        clock = iter(fractions)
        schedule = warmup_cosine(
            optimizer,
            total_steps=1000,
            warmup_fraction=0.1,
            min_lr_ratio=0.01,
            time_share=lambda: next(clock, fractions[-1]),
        )
        lr = [optimizer.param_groups[0]["lr"]]
        for _ in fractions[1:]:
            optimizer.step()
            schedule.step()
            lr.append(optimizer.param_groups[0]["lr"])
        return lr

    slow = rates_in_time([fraction / 20 for fraction in range(21)])  # 20 steps instead of 1,000
    assert slow[2] == pytest.approx(1.0)
    assert slow[-1] == pytest.approx(0.01)
    assert slow[0] < slow[1] < slow[2]
    assert slow[2:] == sorted(slow[2:], reverse=True)
    fast = rates_in_time([0.0] * 10)
    assert fast == pytest.approx(rates(total_steps=1000, warmup_fraction=0.1, min_lr_ratio=0.01, peak=1.0)[:10])
