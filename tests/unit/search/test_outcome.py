"""What a search leaves says all of what its best trial was."""

import shlex

import yaml

from krontime.search.outcome import write_experiment


def test_what_a_search_left_out_is_in_the_command_that_trains_with_its_best(tmp_path):
    default = {"callbacks": {"stop": {"patience": 3}, "best": {"mode": "min"}}, "seed": 0, "logger": {"csv": {}}}
    config = {"callbacks": {"best": {"mode": "max"}}, "seed": 0, "lr": 0.1}
    path = tmp_path / "a b" / "experiment" / "best.yaml"
    path.parent.mkdir(parents=True)
    text, command = write_experiment(path, config, default, {"model": "tcn"}, "val/loss 0.5")
    assert shlex.split(command)[2:] == ["--config-dir", str(tmp_path / "a b"), "experiment=best", "~callbacks.stop"]
    assert f"# {command}: val/loss 0.5.\n" in text
    assert path.read_text() == text
    written = yaml.safe_load(text)
    assert written.pop("defaults") == [{"override /model": "tcn"}]
    assert written == {"callbacks": {"best": {"mode": "max"}}, "lr": 0.1}
