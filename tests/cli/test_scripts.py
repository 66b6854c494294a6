"""The scripts behind the tables: each command of each size is one that krontime takes, and they stop when they should.

They are run in a copy of the project where `krontime` only notes its arguments, and leaves what they need next.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from krontime import cli
from krontime.commands import COMMANDS
from krontime.config import resolve, schema
from krontime.config.files import config_dir
from krontime.console import EXIT_USER_ERROR

SCRIPTS = sorted((Path(__file__).parents[2] / "scripts").glob("*.sh"))
SIZES = ("smoke", "cpu", "full")

NOTE = """#!/usr/bin/env bash
printf '%s\\x1f' "$@" >> "$CALLS"
echo >> "$CALLS"
for argument in "$@"; do
    case $argument in
    paths.output=*) output=${argument#*=} ;;
    run=*) run=${argument#*=} ;;
    esac
done
case "$1 $2" in
"data "*) exit "${DATA:-0}" ;;
"train -m") exit "${CODE:-0}" ;;
train*) mkdir -p "$output/run" && touch "$output/run/record.json" ;;
probe*) touch "$run/probe.png" "$run/probe.csv" ;;
esac
"""
NOTHING = "#!/usr/bin/env bash\n"


def calls(
    script: Path, size: str, project: Path, *, code: int = 0, data: int = 0, python: str = NOTHING
) -> tuple[int, list[list[str]]]:
    """The exit code of a script, and the arguments of each `krontime`.

    Sweeps exit with `code`, the command `data` with `data`; `python` is what stands in for the interpreter.
    """
    shutil.copytree(script.parent, project / "scripts")
    for name, text in {".venv/bin/krontime": NOTE, ".venv/bin/python": python, "bin/make": NOTHING}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
        (project / name).chmod(0o755)
    noted = project / "calls"
    noted.touch()
    path = f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CALLS": str(noted), "CODE": str(code), "DATA": str(data)}
    done = subprocess.run(
        ["bash", f"scripts/{script.name}", size], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.returncode, [line.split("\x1f")[:-1] for line in noted.read_text().splitlines()]


def jobs(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Jobs of a sweep in which each value of each override occurs; those of a suite on its first data set."""
    named = [text.removeprefix("+suite=") for text in overrides if text.startswith("+suite=")]
    suites = [OmegaConf.load(config_dir() / "suite" / f"{name}.yaml") for name in named]
    first = [text.replace("{name}", next(iter(suite.data_sets))) for suite in suites for text in suite.overrides]
    typed = [text for text in overrides if not text.startswith("+suite=")]
    parsed = OverridesParser.create().parse_overrides([*first, *typed])
    values = [[text for ((text,),) in BasicSweeper.split_arguments([each], 1)] for each in parsed]
    for chosen in zip_longest(*values):
        yield [value or every[0] for value, every in zip(chosen, values, strict=True)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_command_of_every_size_composes(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose overrides have all been in others is left out."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    seen: set[tuple[str, str]] = set()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        for size in SIZES:
            code, result = calls(script, size, tmp_path / size)
            assert code == 0
            assert result
            for command, *overrides in result:
                assert command in COMMANDS
                is_multirun = overrides[0] == "-m"
                for job in jobs(overrides[is_multirun:]):
                    if seen >= (new := {(command, text) for text in job}):
                        continue
                    config = resolve.plain(hydra_compose(command, job))
                    if command == "train":
                        schema.check_train(config, is_multirun=is_multirun)
                    seen |= new


@pytest.mark.parametrize("script", [s for s in SCRIPTS if "train -m" in s.read_text()], ids=lambda script: script.stem)
def test_a_failed_job_stops_nothing_and_anything_else_does(script: Path, tmp_path: Path) -> None:
    """A sweep with a failed job exits with 2."""
    _, whole = calls(script, "smoke", tmp_path / "whole")
    assert calls(script, "smoke", tmp_path / "failed", code=EXIT_USER_ERROR) == (0, whole)
    for code in (1, cli.EXIT_INTERRUPTED, 137):
        stopped, result = calls(script, "smoke", tmp_path / str(code), code=code)
        assert stopped != 0
        assert [call[:2] for call in result].count(["train", "-m"]) == 1
        assert result[-1][:2] == ["train", "-m"]


@pytest.mark.parametrize(
    "script", [s for s in SCRIPTS if "krontime data" in s.read_text()], ids=lambda script: script.stem
)
def test_a_missing_file_ends_a_script_before_anything_is_trained(script: Path, tmp_path: Path) -> None:
    code, result = calls(script, "cpu", tmp_path, data=EXIT_USER_ERROR)
    assert code == EXIT_USER_ERROR
    assert [call[0] for call in result] == ["data"]


def value(call: Sequence[str], key: str) -> str | None:
    """Of an override."""
    return next((text.removeprefix(f"{key}=") for text in call if text.startswith(f"{key}=")), None)


def output(call: Sequence[str]) -> str | None:
    """Where a training goes: an override, or what its experiment says."""
    experiment = value(call, "experiment")
    if (typed := value(call, "paths.output")) is not None or experiment is None:
        return typed
    config = OmegaConf.load(config_dir() / "experiment" / f"{experiment}.yaml")
    return str(config.paths.output)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("script", [s for s in SCRIPTS if "seed=" in s.read_text()], ids=lambda script: script.stem)
def test_tables_know_the_seeds_that_were_asked_for(script: Path, size: str, tmp_path: Path) -> None:
    """A seed that every model lacks could not be told otherwise."""
    _, result = calls(script, size, tmp_path)
    swept = [call for call in result if call[:2] == ["train", "-m"]]
    seeds = {output(call): value(call, "seed") for call in swept}
    tables = [call for call in result if call[0] == "tables"]
    assert tables
    for call in tables:
        records = (value(call, "records") or "").strip("[]")
        asked = next(each for output, each in seeds.items() if records == output or records.startswith(f"{output}/"))
        assert value(call, "seeds") == (asked and f"[{asked}]"), call


ON_DEVICE = """#!/usr/bin/env bash
[ "$1" != -c ] || { echo "A GPU"; exit; }
[ "$DRY_RUN" = 1 ] || exit "${TESTS:-0}"
"""


def test_a_gpu_is_claimed_only_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "scripts" / "check_gpu.sh"
    for name, dry_run, python, output in (
        ("device", "", ON_DEVICE, "docs/results/gpu"),
        ("dry", "1", ON_DEVICE, "outputs/check_gpu"),
        ("none", "", NOTHING, "outputs/check_gpu"),
    ):
        monkeypatch.setenv("DRY_RUN", dry_run)
        code, [call] = calls(script, "", tmp_path / name, python=python)
        assert (code, call[:2], value(call, "output")) == (0, ["benchmark", "size=gpu"], output)
        assert int(value(call, "total_s") or 0) <= 440
        assert (value(call, "accelerator") == "cpu") == (name != "device")


def test_failed_tests_on_a_gpu_do_not_stop_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "scripts" / "check_gpu.sh"
    monkeypatch.setenv("TESTS", "3")
    monkeypatch.setenv("DRY_RUN", "")
    code, found = calls(script, "", tmp_path / "failed", python=ON_DEVICE)
    assert code == 3
    assert len(found) == 1
