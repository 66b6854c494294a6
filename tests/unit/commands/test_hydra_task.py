"""A job in another process: what a launcher pickles brings along all that composing its config takes."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from krontime.commands.hydra_task import Task
from krontime.config.files import config_dir

OTHER_PROCESS = """
import pickle, sys
task, config = pickle.load(open(sys.argv[1], "rb"))
assert (task.command, task.command_line, task.begun) == ("train", ["krontime", "train"], False)
sys.stdout.write(config.hydra.run.dir + " " + config.paths.cache)
"""


@pytest.mark.parametrize("pickler", ["pickle", "cloudpickle"])
def test_a_job_that_was_pickled_knows_the_resolvers(pickler: str, tmp_path: Path) -> None:
    dump = pickle.dump if pickler == "pickle" else pytest.importorskip("cloudpickle").dump
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["data=synthetic"], return_hydra_config=True)
    with open(tmp_path / "job", "wb") as file:
        dump((Task("train", ["krontime", "train"]), config), file)
    environment = {key: value for key, value in os.environ.items() if key != "KRONTIME_CACHE"}
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, tmp_path / "job"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(config.hydra.run.dir + " ")
    assert "krontime" in done.stdout.split()[1]
