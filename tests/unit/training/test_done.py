"""When a run that can learn nothing more is ended, also across a resume."""

from types import SimpleNamespace
from typing import Any

import pytest

from krontime.config.targets import instantiate
from krontime.training.done import ACCURACY, NETWORK_WEIGHT, StopWhenDone
from krontime.training.restore import RestoreStopState


def trainer(*callbacks: Any, **metrics: float) -> Any:
    state = SimpleNamespace(fn="fit")
    return SimpleNamespace(
        state=state, sanity_checking=False, should_stop=False, callback_metrics=metrics, callbacks=list(callbacks)
    )


def ends_after(callback: StopWhenDone, epochs: list[dict[str, float]]) -> int | None:
    """Number of the epoch, from 1, after which training ends."""
    for number, metrics in enumerate(epochs, start=1):
        seen = trainer(**metrics)
        callback.on_validation_end(seen, None)
        if seen.should_stop:
            return number
    return None


def accuracies(*values: float) -> list[dict[str, float]]:
    return [{ACCURACY: value} for value in values]


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (accuracies(1, 1, 1, 1), 3),
        (accuracies(0.5, 1, 1, 0.99, 1, 1, 1, 1), 7),
        (accuracies(0.9, 0.95, 0.999, 0.9999), None),
        (accuracies(1, 1), None),
        ([{ACCURACY: 0.7, NETWORK_WEIGHT: 0.0}] * 6, 5),
        ([{ACCURACY: 0.7, NETWORK_WEIGHT: w} for w in (0, 0, 0, 0, 0.2, 0, 0, 0, 0, 0)], 10),
        ([{ACCURACY: 0.7, NETWORK_WEIGHT: 0.3}] * 9, None),
        ([{}] * 9, None),
    ],
)
def test_training_ends_after_so_many_epochs_in_a_row(epochs, expected):
    assert ends_after(StopWhenDone(perfect_epochs=3, idle_epochs=5), epochs) == expected


def test_null_goes_on():
    epochs = [{ACCURACY: 1.0, NETWORK_WEIGHT: 0.0}] * 99
    assert ends_after(StopWhenDone(perfect_epochs=None, idle_epochs=None), epochs) is None


@pytest.mark.parametrize("name", ["perfect_epochs", "idle_epochs"])
def test_no_epoch_is_refused(name):
    with pytest.raises(ValueError, match=name):
        StopWhenDone(**{name: 0})


@pytest.mark.parametrize("stopped_after", [1, 2, 4])
def test_it_counts_on_after_a_resume(stopped_after):
    epochs = accuracies(0.5, 1, 1, 1, 1)
    first, second = StopWhenDone(perfect_epochs=4), StopWhenDone(perfect_epochs=4)
    assert ends_after(first, epochs[:stopped_after]) is None
    second.load_state_dict(first.state_dict())
    assert ends_after(second, epochs[stopped_after:]) == 5 - stopped_after


@pytest.mark.parametrize(("num_epochs", "stays"), [(0, False), (2, False), (3, True)])
def test_a_run_that_was_ended_stays_ended(num_epochs, stays):
    before, after = StopWhenDone(perfect_epochs=3), StopWhenDone(perfect_epochs=3)
    ends_after(before, accuracies(*[1] * num_epochs))
    resumed = trainer(after)
    RestoreStopState().on_load_checkpoint(resumed, None, {"callbacks": {after.state_key: before.state_dict()}})
    assert resumed.should_stop is stays


def test_the_default_config_builds_it(compose):
    built = instantiate(compose()["callbacks"]["done"], "callbacks.done")
    assert isinstance(built, StopWhenDone)
    assert built.limits == {ACCURACY: 10, NETWORK_WEIGHT: 20}
