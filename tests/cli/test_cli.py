"""The command itself: help, version, commands, exit codes, and that asking for help stays cheap."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from krontime import __version__, cli
from krontime.commands import COMMANDS, hydra_task
from krontime.commands.help import help_of
from krontime.config import files as config_files
from krontime.config.overrides import quoted

HEAVY = ("torch", "lightning", "hydra", "omegaconf", "numpy", "pandas", "pydantic", "aeon", "matplotlib", "rich")


def krontime(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "krontime", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def stopped(arguments: Sequence[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_overview_has_one_line_for_each_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    width = max(map(len, COMMANDS))
    for command, (_, meaning) in COMMANDS.items():
        assert [line for line in lines if line.split()[:1] == [command]] == [f"  {command:<{width}}  {meaning}"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out == f"krontime {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_a_command_names_groups_and_keys(command: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([command, flag])
    out = capsys.readouterr().out
    assert out.startswith(f"krontime {command}: ")
    assert f"usage: krontime {command} " in out
    assert max(map(len, out.splitlines())) < 100
    assert "  quiet=false " in out
    cli.main([command, flag, "all"])
    whole = capsys.readouterr().out
    assert max(map(len, whole.splitlines())) < 100
    for key, *_ in config_files.described_keys(config_files.config_dir() / f"{command}.yaml"):
        assert len([line for line in whole.splitlines() if line.startswith(f"  {key}=")]) == 1
    assert ("with --help all lists" in out) == (len(whole) > len(out))


def test_help_begins_before_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krontime.commands.help.groups_and_keys", None)
    assert next(help_of("train", [], is_whole=True)).startswith("krontime train: ")


def test_help_of_train_says_the_keys_of_its_choices(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "--help=all"])
    keys = [line.split("=")[0].strip() for line in capsys.readouterr().out.splitlines() if "=" in line]
    for key in ("data.batch_size", "data.name", "model.d_model", "tokenizer.width", "decomposition.depth"):
        assert keys.count(key) == 1


def test_help_of_other_choices_says_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "model=tcn", "data=npz", "logger=[csv,wandb]", "tokenizer=nothing", "seed=1", "--help", "all"])
    out = capsys.readouterr().out
    keys = [line.split("=")[0].strip() for line in out.splitlines() if "=" in line]
    for key in ("model.num_levels", "data.path", "logger.wandb.offline"):
        assert keys.count(key) == 1, key
    assert "model.d_model" not in keys
    assert " tcn*" in out
    assert " krontime " in out
    cli.main(["train", "--help"])
    default = capsys.readouterr().out
    for nothing in ("x" * 300, "../train", "[]"):
        cli.main(["train", f"data={nothing}", "--help"])
        assert capsys.readouterr().out == default


def test_the_short_help_of_train_is_in_sections(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "--help"])
    lines = capsys.readouterr().out.splitlines()
    sections = [line.split()[0] for line in lines if line.endswith("keys (key=value), with their defaults:")]
    assert sections == ["data", "model", "training", "output"]
    assert len(lines) < 80
    cli.main(["help", "train"])
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("arguments", [["-V"], ["version"], ["train", "--version"]])
def test_version_however_it_is_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(arguments)
    assert capsys.readouterr().out == f"krontime {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--quiet"],
            "--quiet: there is no such option; expected --help, --version, or a command",
        ),
        (["-v"], "-v: there is no such option; expected --help, --version, or a command"),
        (["model=tcn"], "model=tcn: expected a command before it, such as krontime train model=tcn"),
        (["Train"], "(did you mean train?)"),
        (["help", "trian"], "'trian' is not a command: expected one of"),
        (["sweepstatus"], "(did you mean sweep-status?)"),
        (["train", "--quiet"], "--quiet: there is no such option; expected quiet=true"),
        (["data", "-q"], "-q: there is no such option; expected quiet=true"),
        (["plan", "--json"], "--json: there is no such option; expected json=true"),
        (["train", "-v"], "-v: there is no such option; expected --version, or hydra.verbose=true"),
        (["train", "--lr", "3"], "--lr: there is no such option; expected key=value without dashes, such as lr=VALUE"),
        (["train", "quiet=maybe"], "quiet=maybe: expected quiet=true or quiet=false"),
        (["data", "json="], "json=: expected json=true or json=false"),
    ],
)
def test_what_is_no_command_or_option_is_answered(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stopped(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=PatchTST", "(did you mean patchtst?)"),
        ("model=KronTime", "(did you mean krontime?)"),
        ("data=FSDD-speakers", "(did you mean fsdd_speakers?)"),
        ("Seed=1", "(did you mean seed?)"),
        ("trainer.maxepochs=1", "(did you mean trainer.max_epochs?)"),
    ],
)
def test_names_are_matched_whatever_their_case(override: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped(["train", override]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss=focal", "expected values for its keys loss.label_smoothing and loss.class_weights"),
        ("augment=strong", "expected values for its keys augment.shift and augment.scale and"),
        ("data.window=100", "expected values for its keys data.window.length and data.window.stride"),
    ],
)
def test_a_section_is_no_value(override: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped(["train", override]) == 2
    assert said in capsys.readouterr().err


def test_an_override_of_an_earlier_version_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "--cfg", "job", "read_out=none"])
    earlier = capsys.readouterr().out
    cli.main(["train", "--cfg", "job", "closed_form=none"])
    assert capsys.readouterr().out == earlier != ""


def test_a_list_of_keys_names_each_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped(["train", "zzz=1"]) == 2
    names = capsys.readouterr().err.partition("expected one of ")[2].rstrip(")\n").split(", ")
    assert len(names) == len(set(names)) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_function_and_config(command: str) -> None:
    assert callable(hydra_task.function(command))
    assert (config_files.config_dir() / f"{command}.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [(["--help"], ""), (["--version"], ""), ([], ""), (["train", "--help"], "pydantic"), (["trian"], "")],
    ids=["help", "version", "nothing", "help of a command", "no command"],
)
def test_help_imports_nothing_heavy(arguments: list[str], needed: str) -> None:
    probe = (
        "import sys\nfrom krontime.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"sys.stdout.write('imported:' + ','.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stdout.rpartition("imported:")[1:] == ("imported:", needed)  # the schema, for what it says of keys


def test_the_module_is_the_command(tmp_path: Path) -> None:
    assert krontime("--version", cwd=tmp_path).stdout == f"krontime {__version__}\n"
    done = krontime("train", "modle=tcn", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "krontime: modle=tcn: there is no key modle (did you mean model?)\n"
    assert list(tmp_path.iterdir()) == []


def test_the_home_folder_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert quoted("paths.output=~/runs") == f"paths.output={tmp_path}/runs"
    assert quoted("run=~") == f"run={tmp_path}"
    assert quoted("data.name=~x") == "data.name='~x'"


@pytest.mark.parametrize(
    ("command", "hint"),
    [("trian", "did you mean train?"), ("predicts", "did you mean predict?"), ("x", "train, evaluate")],
)
def test_unknown_command(command: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped([command, "model=tcn"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert repr(command) in captured.err
    assert hint in captured.err


def test_traceback_when_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mistake = ["evaluate", "run=nowhere"]
    assert stopped(mistake) == 2
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("KRONTIME_TRACEBACK", "1")
    assert stopped(mistake) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "load_run" in err
    assert err.splitlines()[-1].startswith("krontime: run='nowhere'")


def test_a_fault_of_the_program_is_not_dressed_as_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("krontime.commands.evaluate.evaluate", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["evaluate", "run=x"])


def test_a_full_disk_is_no_fault_of_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "page.html")

    monkeypatch.setattr("krontime.commands.report.report", full)
    assert stopped(["report", "run=x"]) == 2
    assert capsys.readouterr().err == "krontime: page.html: No space left on device: expected room\n"


def test_interruption_has_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("krontime.commands.evaluate.evaluate", interrupted)
    assert stopped(["evaluate", "run=x"]) == 130
    assert capsys.readouterr().err == "krontime: interrupted\n"


WAITING = """
import sys, time
from krontime import cli
from krontime.commands import hydra_task
hydra_task.function = lambda command: lambda config: print("begun", flush=True) or time.sleep(60)
sys.argv = ["krontime", "evaluate", "run=x"]
cli.main()
"""


def test_a_shell_script_ends_with_the_command_that_is_interrupted() -> None:
    """Whatever the script does with the exit code."""
    script = 'set -euo pipefail; "$0" -c "$1" || true; echo went on'
    process = subprocess.Popen(
        ["bash", "-c", script, sys.executable, WAITING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (-signal.SIGINT, "", "krontime: interrupted\n")


def test_arguments_of_the_process_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning starts further ranks with them."""
    seen: list[list[str]] = []
    monkeypatch.setattr("krontime.commands.evaluate.evaluate", lambda _: seen.append(list(sys.argv)))
    monkeypatch.setattr(sys, "argv", ["/somewhere/krontime", "evaluate", "run=x"])
    cli.main()
    assert seen == [["/somewhere/krontime", "evaluate", "run=x"]]
    assert sys.argv == seen[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}),
    ],
)
def test_idle_threads_spin_briefly_unless_the_user_says_how_long(
    given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set before PyTorch is imported, which `test_help_imports_nothing_heavy` sees to."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    for name in names:
        monkeypatch.setenv(name, given.get(name, ""))
        if name not in given:
            monkeypatch.delenv(name)
    cli.main(["--version"])
    assert {name: os.environ[name] for name in names if name in os.environ} == expected


@pytest.mark.parametrize("arguments", [["train"], ["data", "json=true"], ["sweep-status", "outputs=."]])
def test_a_folder_that_is_gone_is_said(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    assert stopped(arguments) == 2
    assert "the folder that this is run in is gone" in capsys.readouterr().err


class TestJson:
    """`json=true`: one JSON object on standard output, whatever the command."""

    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        ("arguments", "keys"),
        [
            (["data"], {"command", "text"}),
            (["plan", "length=2048"], {"command"}),
            (["sweep-status", "outputs=."], {"command", "counts", "jobs", "time_left_s"}),
        ],
    )
    def test_of_a_command(self, arguments: list[str], keys: set[str], capsys: pytest.CaptureFixture[str]) -> None:
        cli.main([*arguments, "json=true"])
        (line,) = capsys.readouterr().out.splitlines()
        report = json.loads(line)
        assert report["command"] == arguments[0]
        assert keys <= set(report)
        assert len(report) > 1
        assert "KRONTIME_OUTPUT" not in os.environ

    @pytest.mark.parametrize(
        "arguments", [["train", "seed=x"], ["evaluate", "run=nowhere"], ["data", "data=ucr", "z=1"]]
    )
    def test_of_a_mistake(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert stopped([*arguments, "json=true", "quiet=true"]) == 2
        captured = capsys.readouterr()
        report = json.loads(captured.out)
        assert (report["command"], report["status"]) == (arguments[0], "refused")
        assert all(problem in captured.err for problem in report["problems"])

    def test_of_a_fault_and_of_an_interruption(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def raising(error: BaseException) -> Callable[[object], None]:
            def command(_: object) -> None:
                raise error

            return command

        monkeypatch.setattr("krontime.commands.evaluate.evaluate", raising(ZeroDivisionError("x")))
        with pytest.raises(ZeroDivisionError):
            cli.main(["evaluate", "run=x", "json=true"])
        assert json.loads(capsys.readouterr().out) == {
            "command": "evaluate",
            "status": "failed",
            "error": "ZeroDivisionError: x",
        }
        monkeypatch.setattr("krontime.commands.evaluate.evaluate", raising(KeyboardInterrupt()))
        assert stopped(["evaluate", "run=x", "json=true"]) == 130
        assert json.loads(capsys.readouterr().out) == {"command": "evaluate", "status": "interrupted"}
