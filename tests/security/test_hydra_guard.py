"""A config can't run code by way of Hydra's own part: not from an override, a file, or one job of a sweep."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from krontime import cli
from krontime.commands import COMMANDS
from krontime.config import files as config_files
from krontime.config import hydra_guard

SINGLE = {
    "callback": ("+hydra.callbacks.e._target_=logging.FileHandler", "+hydra.callbacks.e.filename=F"),
    "callback elsewhere": ("+evil={e:{_target_:logging.FileHandler,filename:F}}", "hydra.callbacks=${evil}"),
    "sweeper": ("hydra.sweeper._target_=logging.FileHandler", "+hydra.sweeper.filename=F"),
    "launcher": ("hydra.launcher._target_=logging.FileHandler", "+hydra.launcher.filename=F"),
    "inside a launcher": ("+hydra.launcher.x={_target_:logging.FileHandler,filename:F}",),
    "inside a launcher, from elsewhere": (
        "+evil={_target_:logging.FileHandler,filename:F}",
        "+hydra.launcher.x=${evil}",
    ),
    "inside a launcher, from the environment": (
        "+hydra.job.env_set._target_=x",
        "+hydra.launcher.x=${hydra.job.env_set}",
    ),
    "target from elsewhere": (
        "+evil=logging.FileHandler",
        "hydra.launcher._target_=${evil}",
        "+hydra.launcher.filename=F",
    ),
    "target that is no text": ("+hydra.launcher.x={_target_:{y:1}}",),
    "factory of a handler": ("+hydra.job_logging.handlers.e={'()':logging.FileHandler,filename:F}",),
    "factory of a formatter": ("+hydra.job_logging.formatters.e={'()':open,file:F,mode:w}",),
    "factory in Hydra's logging": (
        "+hydra.hydra_logging.handlers.e={'()':logging.FileHandler,filename:F}",
        "hydra.hydra_logging.root={handlers:[e]}",
    ),
    "handler": ("+hydra.job_logging.handlers.e={class:logging.handlers.RotatingFileHandler,filename:F}",),
    "handler from elsewhere": (
        "+evil={class:logging.handlers.RotatingFileHandler,filename:F}",
        "+hydra.job_logging.handlers.e=${evil}",
    ),
    "stream": ("hydra.job_logging.handlers.console.stream=ext://antigravity.fly",),
    "stream from elsewhere": ("+evil=ext://antigravity.fly", "hydra.job_logging.handlers.console.stream=${evil}"),
    "package of configs": ("hydra.searchpath=[pkg://evil]",),
    "path of a package": ("--config-path", "pkg://evil"),
    "pickle": ("--experimental-rerun=job.pickle",),
}


def refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in that holds a Python package, which writes a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text("open('F', 'w').close()\n")
    (tmp_path / "evil" / "data.yaml").write_text("{}\n")
    return tmp_path


@pytest.mark.parametrize("mode", [[], ["-m"], ["hydra.mode=MULTIRUN"]], ids=["single", "multirun", "mode"])
@pytest.mark.parametrize("overrides", SINGLE.values(), ids=SINGLE)
def test_an_override_runs_nothing(
    overrides: tuple[str, ...], mode: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["data", *mode, *overrides])
    err = capsys.readouterr().err
    assert "expected" in err
    assert "Traceback" not in err
    assert not (tmp_path / "F").exists()


FILE = """\
# @package _global_
hydra:
  job_logging:
    handlers:
      e: {'()': logging.FileHandler, filename: F}
    root: {handlers: [e]}
"""


def test_a_file_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a choice from another folder, as the config itself, from a search path, and as one job of a sweep."""
    (tmp_path / "mine" / "size").mkdir(parents=True)
    (tmp_path / "mine" / "size" / "huge.yaml").write_text(FILE)
    whole = (config_files.config_dir() / "data.yaml").read_text()
    (tmp_path / "mine" / "other.yaml").write_text(whole + FILE.partition("\n")[2])
    searching = whole + "hydra:\n  searchpath: [pkg://evil]\n"
    (tmp_path / "mine" / "searching.yaml").write_text(searching)
    for arguments in (
        ["--config-dir", "mine", "+size=huge"],
        ["--config-dir", "mine", "--config-name", "other"],
        ["--config-dir", "mine", "--config-name", "searching"],
        [f"hydra.searchpath=[{tmp_path / 'mine'}]", "+size=huge"],
        ["-m", "--config-dir", "mine", "+size=cpu,huge"],
    ):
        refused(["data", *arguments])
        assert not (tmp_path / "F").exists(), arguments
        assert "Traceback" not in capsys.readouterr().err


def test_what_hydra_is_for_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own logging, folders of configs, names in paths, and sweeps."""
    (tmp_path / "mine" / "size").mkdir(parents=True)
    (tmp_path / "mine" / "size" / "huge.yaml").write_text("# @package _global_\nseries_per_class: 2\n")
    cli.main(["data", "hydra/job_logging=default", "hydra.run.dir=run"])
    cli.main(["data", "--config-dir", "mine", "+size=huge"])
    cli.main(["data", f"hydra.searchpath=[{tmp_path / 'mine'}]", "+size=huge"])
    cli.main(["data", "+hydra.launcher.folder=${hydra.sweep.dir}/.jobs/%j", "+hydra.launcher.job=${hydra.job.name}"])
    cli.main(["data", "-m", "hydra.sweep.dir=sweep", "seed=0,1"])
    cli.main(["data", "hydra.mode=MULTIRUN", "hydra.sweep.dir=sweep", "seed=0,1"])
    assert capsys.readouterr().out.count("synthetic") == 8


def test_every_commands_own_part_passes() -> None:
    for command in COMMANDS:
        with initialize_config_dir(str(config_files.config_dir()), version_base="1.3"):
            config = compose(command, return_hydra_config=True)
        assert isinstance(config, DictConfig)
        assert hydra_guard.hydra_problems(config) == []


def test_several_jobs_by_hydras_mode_stop_at_a_mistake_as_with_the_switch(capsys: pytest.CaptureFixture[str]) -> None:
    refused(["data", "hydra.mode=MULTIRUN", "hydra.sweep.dir=sweep", "data=synthetic", "series_per_class=0,-1"])
    assert "series_per_class=0" in capsys.readouterr().err
