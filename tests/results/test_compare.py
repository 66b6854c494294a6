"""Runs are compared by one option where nothing else sets them apart."""

import pytest
from PIL import Image

from krontime.errors import UserError
from krontime.results.compare import by_option, main
from krontime.results.record import Status


def config(attention: str, seed: int, **more) -> dict:
    return {"seed": seed, "model": {"attention": attention, "depth": 2}, **more}


@pytest.fixture
def records(make_record):
    return [
        make_record(config=config(attention, seed), seed=seed, accuracy=0.5 + 0.1 * seed)
        for attention in ("kronecker", "full")
        for seed in (0, 1)
    ]


def test_runs_are_grouped_by_the_option(records, make_record):
    failed = make_record(config=config("full", 2), seed=2, status=Status.FAILED)
    groups = by_option([*records, failed], "model.attention")
    assert list(groups) == ["full", "kronecker"]
    assert [[record.seed for record in group] for group in groups.values()] == [[0, 1], [0, 1]]
    assert records[0].config["model"]["attention"] == "kronecker"  # left as it was


@pytest.mark.parametrize(
    ("more", "key", "says"),
    [
        ({"data": {"scaling": "none"}}, "model.attention", "differ in more than this"),
        ({}, "model.width", "a key of every record's config"),
        ({}, "seed.x", "a key of every record's config"),
    ],
)
def test_what_can_not_be_compared_is_refused(records, make_record, more, key, says):
    other = make_record(config=config("full", 0, **more), seed=0)
    with pytest.raises(UserError, match=says):
        by_option([*records, other], key)
    with pytest.raises(UserError, match="no completed run"):
        by_option([], key)


def test_the_plot_says_in_words_what_it_shows(records, tmp_path, capsys):
    for number, record in enumerate(records):
        record.write(tmp_path / str(number) / "record.json")
    path = tmp_path / "plot.png"
    assert main([str(tmp_path), "--by", "model.attention", "--output", str(path)]) == 0
    words = Image.open(path).text["Description"]
    assert "test accuracy of full: 0.550 (n=2)" in words
    assert "training time (s) of kronecker: 125 (n=2)" in words
    assert main([str(tmp_path), "--by", "model.nothing", "--output", str(path)]) == 2
    assert "model.nothing" in capsys.readouterr().err
