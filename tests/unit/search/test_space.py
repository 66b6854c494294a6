"""The search space: what it suggests is in it, reads as an override, and what it can't be is named."""

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from krontime.errors import UserError
from krontime.search.space import Space, override

OPTIONS = {
    "optim.optimizer.lr": {"low": 1e-6, "high": 1e-2, "log": True},
    "model.num_layers": {"low": 1, "high": 3},
    "model.channels": {"low": 16, "high": 64, "step": 16},
    "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.25},
    "decomposition": ["depth2", "depth3"],
    "model.level_sizes": [[4, 8], [8, 4]],
    "model.flag": [True, None, "a b's"],
}


def test_what_it_suggests_is_in_it_and_reads_as_an_override():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    parser = OverridesParser.create()
    seen: dict[str, set[str]] = {key: set() for key in OPTIONS}
    for _ in range(40):
        overrides = [parser.parse_override(text) for text in Space(OPTIONS).suggest(study.ask())]
        assert [result.key_or_group for result in overrides] == list(OPTIONS)
        for result in overrides:
            seen[result.key_or_group].add(repr(result.value()))
    assert all(1e-6 <= float(value) <= 1e-2 for value in seen["optim.optimizer.lr"])
    assert min(map(float, seen["optim.optimizer.lr"])) < 1e-5  # in the logarithm
    assert seen["model.num_layers"] == {"1", "2", "3"}
    assert seen["model.channels"] == {"16", "32", "48", "64"}
    assert seen["model.dropout"] == {"0.0", "0.25", "0.5"}
    assert seen["decomposition"] == {"'depth2'", "'depth3'"}
    assert seen["model.level_sizes"] == {"[4, 8]", "[8, 4]"}
    assert seen["model.flag"] == {"True", "None", '"a b\'s"'}


def test_its_ends_are_each_choice_and_both_ends_of_a_range():
    ends = [text for _, text in Space(OPTIONS).ends()]
    assert "optim.optimizer.lr=1e-06" in ends
    assert {"model.channels=16", "model.channels=64", "decomposition=depth3", "model.flag=null"} <= set(ends)
    assert override("a", [1, "b"]) == 'a=[1, "b"]'


WRONG = {
    "text": "depth2",
    "no choices": [],
    "twice": [1, 1],
    "no high": {"low": 1},
    "unknown key": {"low": 1, "high": 2, "base": 10},
    "words": {"low": "a", "high": "b"},
    "order": {"low": 2, "high": 1},
    "log of nothing": {"low": 0, "high": 1, "log": True},
    "log and step": {"low": 1, "high": 8, "log": True, "step": 2},
    "step of a half": {"low": 1, "high": 8, "step": 0.5},
    "log as text": {"low": 1, "high": 8, "log": "yes"},
}


def test_all_that_can_not_be_is_named_at_once():
    with pytest.raises(UserError) as error:
        Space({**WRONG, "fine": [1, 2]})
    assert len(error.value.problems) == len(WRONG)
    for key, problem in zip(WRONG, error.value.problems, strict=True):
        assert problem.startswith(f"search.space.{key}=")
    with pytest.raises(UserError, match="at least one override"):
        Space({})
