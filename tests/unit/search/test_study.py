"""One study of several processes: trials are counted together, and what a dead process left is tried again."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from krontime.errors import UserError
from krontime.search.space import Space
from krontime.search.study import ClaimedTrial, SharedStudy

optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE = Space({"x": {"low": 0.0, "high": 1.0}, "y": ["a", "b"]})
FORK = multiprocessing.get_context("fork")


def shared(folder: Path, **about: Any) -> SharedStudy:
    return SharedStudy(
        folder,
        direction="minimize",
        about={"config": "abc", **about},
        sampler=lambda number: optuna.samplers.TPESampler(seed=number, n_startup_trials=2),
        pruner=None,
    )


def value(task: ClaimedTrial) -> float:
    return (task.trial.params["x"] - 0.3) ** 2


def run(study: SharedStudy, num_trials: int) -> list[list[str]]:
    result = []
    while (task := study.next(SPACE, num_trials)) is not None:
        study.end(task, value=value(task))
        result.append(task.overrides)
    return result


def process(work: Callable[[], None]) -> int | None:
    """Run in a forked process; its exit code."""
    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode


def test_trials_are_counted_over_commands_and_the_rest_is_the_same(tmp_path):
    whole = run(shared(tmp_path / "whole"), 6)
    first = run(shared(tmp_path / "parts"), 2)
    then = run(shared(tmp_path / "parts"), 6)
    assert len(first) == 2
    assert first + then == whole
    assert run(shared(tmp_path / "parts"), 6) == []
    assert len({tuple(overrides) for overrides in whole}) == 6


@pytest.mark.filterwarnings("ignore:BruteForceSampler is experimental")
@pytest.mark.parametrize("name", ["brute force", "grid"])
def test_a_sampler_that_counts_ends_the_search_when_all_options_are_tried(tmp_path, name):
    """Optuna's `Study.stop` raises where trials are asked for and told (optuna issue 4121)."""
    samplers = optuna.samplers
    sampler = samplers.GridSampler({"y": ["a", "b"]}, seed=0) if name == "grid" else samplers.BruteForceSampler(seed=0)
    options = []
    for _ in range(2):  # the same command again has nothing to do
        study = SharedStudy(tmp_path, direction="minimize", about={}, sampler=lambda number: sampler, pruner=None)
        if not options:
            study.give_up(study.next(Space({"y": ["a", "b"]}), 9))
        while (task := study.next(Space({"y": ["a", "b"]}), 9)) is not None:
            study.end(task, value=1.0)
            options += task.overrides
    assert sorted(options) == ["y=a", "y=b"]
    assert study.is_exhausted
    assert len(study.completed()) == 2


def test_several_processes_end_exactly_as_many_trials_as_asked_for(tmp_path):
    shared(tmp_path)
    children = [FORK.Process(target=lambda: run(shared(tmp_path), 12)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0, 0]
    ended = shared(tmp_path).ended()
    assert len(ended) == 12
    assert len({tuple(trial.params.values()) for trial in ended}) == 12
    assert not list((tmp_path / "trials").glob("*.lock"))


def test_a_trial_of_a_dead_process_is_tried_again(tmp_path):
    def die() -> None:
        shared(tmp_path).next(SPACE, 3)
        os._exit(9)

    assert process(die) == 9
    study = shared(tmp_path)
    (left,) = study.study.get_trials()
    assert left.state is optuna.trial.TrialState.RUNNING
    task = study.next(SPACE, 3)
    assert task is not None
    assert task.overrides == left.user_attrs["overrides"]
    assert study.study.get_trials()[0].state is optuna.trial.TrialState.FAIL
    study.end(task, value=1.0)
    assert len(run(study, 3)) == 2  # what failed counts for nothing


def test_options_that_end_every_process_end_two_of_them_and_count(tmp_path):
    def die() -> None:
        shared(tmp_path).next(SPACE, 2)
        os._exit(9)

    assert [process(die), process(die)] == [9, 9]
    study = shared(tmp_path)
    assert len(run(study, 2)) == 1
    first, second, last = study.study.get_trials()
    assert [trial.number for trial in study.ended()] == [1, 2]
    assert second.user_attrs["overrides"] == first.user_attrs["overrides"] != last.user_attrs["overrides"]
    assert second.user_attrs["problem"] == "its process died, as did one before"
    assert study.completed() == [last]
    assert not list((tmp_path / "trials").glob("*.lock"))


def test_a_trial_of_a_living_process_is_left_alone_and_counted(tmp_path):
    begun, go_on = FORK.Event(), FORK.Event()

    def work() -> None:
        study = shared(tmp_path)
        task = study.next(SPACE, 2)
        assert task is not None
        begun.set()
        go_on.wait(60)
        study.end(task, value=0.5)

    child = FORK.Process(target=work)
    child.start()
    assert begun.wait(60)
    study = shared(tmp_path)
    assert len(run(study, 2)) == 1
    assert study.study.get_trials()[0].state is optuna.trial.TrialState.RUNNING
    go_on.set()
    child.join(60)
    assert child.exitcode == 0
    assert sorted(trial.number for trial in study.ended()) == [0, 1]


def test_a_trial_that_was_given_up_is_tried_again(tmp_path):
    """However often, where it was interrupted; an error is seen to the second time."""
    study = shared(tmp_path)
    task = first = study.next(SPACE, 1)
    for _ in range(3):
        assert not study.is_last_try(task)
        study.give_up(task)
        task = study.next(SPACE, 1)
    study.give_up(task, has_failed=True)
    task = study.next(SPACE, 1)
    assert task.overrides == first.overrides
    assert study.is_last_try(task)
    study.give_up(task)
    assert study.is_last_try(study.next(SPACE, 1))


def test_a_trial_whose_options_do_not_work_counts_and_says_why(tmp_path):
    study = shared(tmp_path)
    study.end(study.next(SPACE, 2), problem="out of memory")
    assert len(run(study, 2)) == 1
    assert study.ended()[0].user_attrs["problem"] == "out of memory"
    assert [trial.number for trial in study.completed()] == [1]


def test_a_grid_may_follow_another_sampler(tmp_path):
    run(shared(tmp_path), 1)
    grid = optuna.samplers.GridSampler({"x": [0.5], "y": ["a"]}, seed=0)
    study = SharedStudy(
        tmp_path, direction="minimize", about={"config": "abc"}, sampler=lambda number: grid, pruner=None
    )
    assert run(study, 9) == [["x=0.5", "y=a"]]


def test_another_search_in_the_folder_is_refused(tmp_path):
    shared(tmp_path, space={"x": 1})
    shared(tmp_path, space={"x": 1})
    with pytest.raises(UserError, match="another space"):
        shared(tmp_path, space={"x": 2})
