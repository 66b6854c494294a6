"""The learning rate's shape over a run."""

import math

import pytest
import torch

from krontime.training.schedule import WarmupCosine


def rates(*, total_steps: int, warmup_fraction: float, min_lr_ratio: float, peak: float = 0.5) -> list[float]:
    """The learning rate that each step of a run uses, and the one after."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = WarmupCosine(
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
    schedule = WarmupCosine(optimizer, total_steps=5, warmup_fraction=0.2, min_lr_ratio=0.1)
    for _ in range(20):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("num_groups", [1, 2, 5])
def test_it_is_computed_once_a_step_for_all_groups(num_groups, monkeypatch):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(num_groups)]
    optimizer = torch.optim.SGD([{"params": [p], "lr": 1.0 + i} for i, p in enumerate(parameters)], lr=1.0)
    asked: list[int] = []
    factor = WarmupCosine.factor

    def counted(self, steps_done):
        asked.append(steps_done)
        return factor(self, steps_done)

    monkeypatch.setattr(WarmupCosine, "factor", counted)
    schedule = WarmupCosine(optimizer, total_steps=9, warmup_fraction=0.3, min_lr_ratio=0.1)
    for _ in range(9):
        optimizer.step()
        schedule.step()
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([rates[0] * (1.0 + i) for i in range(num_groups)])
    assert asked == list(range(10))


@pytest.mark.parametrize("stopped_after", [1, 4, 8])
def test_it_resumes_from_plain_values(stopped_after):
    def optimizer():
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)

    whole = rates(total_steps=9, warmup_fraction=0.3, min_lr_ratio=0.1)
    first = optimizer()
    schedule = WarmupCosine(first, total_steps=9, warmup_fraction=0.3, min_lr_ratio=0.1)
    for _ in range(stopped_after):
        first.step()
        schedule.step()
    second = optimizer()
    resumed = WarmupCosine(second, total_steps=9, warmup_fraction=0.3, min_lr_ratio=0.1)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    result = []
    for _ in range(9 - stopped_after):
        result.append(second.param_groups[0]["lr"])
        second.step()
        resumed.step()
    assert result == whole[stopped_after:-1]
