"""What stands for a path or a name stays the text that was typed; everything else is read as before."""

import pytest

from krontime.config.overrides import _parsed, quoted
from krontime.config.text_keys import is_text

TEXT = ("data.path", "paths.output", "logger.wandb.name", "run", "input", "output", "data.source.path", "data.name")
ODD = (
    "2024",
    "1_0",
    "2024_05",
    "1e5",
    "true",
    "0x1f",
    "trial 1,2.npz",
    "[1].npz",
    "{a}.npz",
    "a:b",
    "nan",
    "-3",
    "a=b",
)


@pytest.mark.parametrize("key", TEXT)
def test_text_is_text_whatever_it_looks_like(key):
    assert is_text(key)
    for value in ODD:
        override = _parsed(quoted(f"{key}={value}"))
        assert override is not None
        assert not override.is_sweep_override()
        assert str(override.value()) == value
        assert isinstance(override.value(), str)


@pytest.mark.parametrize("key", ["data.path", "data.train", "run", "input", "records"])
def test_null_is_a_name_where_there_has_to_be_one(key):
    assert quoted(f"{key}=null") == f"{key}='null'"


@pytest.mark.parametrize(
    "argument",
    [
        "seed=3",
        "model.d_model=1_0",
        "data.batch_size=16",
        "force=true",
        "data.test=null",
        "paths.cache=null",
        "model.level_sizes=[2,3]",
    ],
)
def test_numbers_and_null_stay_what_they_are(argument):
    assert quoted(argument) == argument


def test_lists_of_names_are_lists_of_text():
    assert quoted("data.source.ignore=[2024,id, 1_0]") == "data.source.ignore=['2024',id,'1_0']"
    assert quoted("records=[outputs,2024]") == "records=[outputs,'2024']"
    assert quoted("outputs=2024") == "outputs='2024'"
    assert quoted("readme=[README.md,docs/1.md]") == "readme=[README.md,docs/1.md]"


def test_a_sweep_over_names_has_a_job_for_each():
    assert quoted("data.name=ACSF1,2024", is_sweep=True) == "data.name=ACSF1,'2024'"
    assert quoted("data.name=choice(A,B)", is_sweep=True) == "data.name=choice(A,B)"
    assert quoted("seed=0,1", is_sweep=True) == "seed=0,1"


def test_quotes_that_were_typed_stay():
    assert quoted("data.path='trial 1,2.npz'") == "data.path='trial 1,2.npz'"
