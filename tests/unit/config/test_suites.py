"""Suites: what their files hold, and the jobs they become."""

import pytest
import yaml
from aeon.datasets import tsc_datasets

from krontime.config.files import config_dir, options, summary
from krontime.config.suites import Suite, with_suites
from krontime.errors import UserError

SUITES = options("suite")


def read(name: str) -> Suite:
    return Suite.parse(name, yaml.safe_load((config_dir() / f"suite/{name}.yaml").read_text()))


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_says_what_it_is_and_why_each_data_set_is_in_it(name):
    suite = read(name)
    assert len(summary(config_dir() / f"suite/{name}.yaml")) > 20
    assert all(len(reason) > 10 for reason in suite.data_sets.values())
    known = tsc_datasets.monster if name == "monster_long" else tsc_datasets.tsc_zenodo
    assert set(suite.data_sets) <= set(known)


@pytest.mark.parametrize("name", SUITES)
def test_every_data_set_of_a_suite_composes(compose, name):
    suite = read(name)
    for job, data_set in list(zip(suite.jobs(), suite.data_sets, strict=True))[:3]:
        data = compose(*job)["data"]
        assert data_set in (data["name"], data["source"]["name"])


def test_the_archives_lists_are_those_that_classifiers_are_published_on():
    assert set(read("ucr112").data_sets) == set(tsc_datasets.univariate_equal_length)
    assert set(read("uea_equal").data_sets) == set(tsc_datasets.multivariate_equal_length)
    assert len(read("dev").data_sets) == 22
    assert len(read("long15").data_sets) == 15
    assert set(read("long15").data_sets) | set(read("dev").data_sets) <= set(read("ucr112").data_sets)


def test_jobs_are_every_job_on_every_data_set_once():
    one = Suite.parse("one", {"overrides": ["data=archive", "data.name={name}"], "data_sets": {"A": "a", "B": "b"}})
    two = Suite.parse("two", {"overrides": ["data=archive", "data.name={name}"], "data_sets": {"B": "b", "C": "c"}})
    assert with_suites({"one": one, "two": two}, [["seed=0"], ["seed=1"]]) == [
        ["data=archive", f"data.name={name}", f"seed={seed}"] for name in "ABC" for seed in (0, 1)
    ]
    assert with_suites({"one": one}, [[]]) == one.jobs()


@pytest.mark.parametrize("override", ["data=ucr", "data.name=ACSF1"])
def test_data_of_a_jobs_own_is_refused(override):
    suite = Suite.parse("one", {"overrides": ["data.name={name}"], "data_sets": {"A": "a"}})
    with pytest.raises(UserError, match=rf"{override}: has no effect beside \+suite=one"):
        with_suites({"one": suite}, [[override, "seed=0"], [override, "seed=1"]])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"overrides": ["data=ucr"], "data_sets": {"A": "a"}}, "overrides: expected one with {name}"),
        ({"overrides": ["data.name={name}"], "data_sets": {}}, "data_sets: "),
        ({"overrides": ["data.name={name}"], "data_sets": ["A"]}, "data_sets: "),
        ({"overrides": ["data.name={name}"], "data_sets": {"A": "a"}, "seeds": [1]}, "seeds: "),
    ],
)
def test_a_wrong_file_is_named(content, says):
    with pytest.raises(UserError) as error:
        Suite.parse("own", content)
    assert f"suite/own.yaml: {says}" in str(error.value)
