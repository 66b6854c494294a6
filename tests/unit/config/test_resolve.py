"""A config becomes plain values: what is missing, where things lie, and how data is named."""

import pytest
from omegaconf import OmegaConf

from krontime.config import resolve
from krontime.errors import UserError


def test_plain_names_every_missing_value_at_once():
    config = OmegaConf.create({"a": "???", "b": {"c": ["???", 1]}, "hydra": {"x": "???"}})
    with pytest.raises(UserError) as error:
        resolve.plain(config)
    assert [problem.split("=")[0] for problem in error.value.problems] == ["a", "b.c[0]"]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("/somewhere", "/somewhere"), ("", "/home/me/.cache/krontime"), (None, "/home/me/.cache/krontime")],
)
def test_parsed_data_lies_where_the_environment_says(
    variable: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KRONTIME_CACHE", variable or "")
    if variable is None:
        monkeypatch.delenv("KRONTIME_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert resolve.plain(OmegaConf.create({"cache": "${krontime.user_cache:}"})) == {"cache": expected}


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (".", "sounds.v2"),
        ("../sounds.v2/", "sounds.v2"),
        ("sub/../set.v1.npz", "set.v1"),
        (".mine", "mine"),
        ("back\\slash", "back_slash"),
        ("/", "data"),
    ],
)
def test_a_data_set_is_named_after_its_file_or_folder(typed, name, tmp_path, monkeypatch):
    for folder in ("sounds.v2", "sounds.v2/.mine", "sounds.v2/back\\slash"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "sounds.v2")
    config = OmegaConf.create({"data": {"path": typed, "name": "${krontime.stem:${data.path}}"}})
    assert resolve.plain(config)["data"]["name"] == name


def test_no_home_folder_matters_only_where_one_is_needed(monkeypatch: pytest.MonkeyPatch):
    def homeless(*_: object, **__: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_dir", homeless)
    config = OmegaConf.create({"paths": {"cache": "${krontime.user_cache:}"}})
    monkeypatch.setenv("KRONTIME_CACHE", "/somewhere")
    assert resolve.plain(config) == {"paths": {"cache": "/somewhere"}}
    monkeypatch.setenv("KRONTIME_CACHE", "")
    with pytest.raises(UserError, match=r"no home folder.*expected paths\.cache=FOLDER"):
        resolve.plain(config)
    assert resolve.plain(OmegaConf.merge(config, {"paths": {"cache": "here"}})) == {"paths": {"cache": "here"}}


def test_plain_resolves_and_leaves_hydra_out():
    config = OmegaConf.create({"a": 1, "b": ["${a}", {"c": "${a}"}], "hydra": {"x": 1}})
    result = resolve.plain(config)
    assert result == {"a": 1, "b": [1, {"c": 1}]}
    assert type(result["b"]) is list
    assert type(result["b"][1]) is dict
    with pytest.raises(UserError, match="nowhere"):
        resolve.plain(OmegaConf.create({"a": "${nowhere}"}))
