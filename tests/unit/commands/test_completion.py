"""What a shell is offered for a line, and that bash offers it."""

import shutil
import subprocess

import pytest

from krontime import cli
from krontime.commands import COMMANDS
from krontime.commands.completion import SCRIPTS, completions


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("krontime tra", ["train"]),
        ("krontime help tra", ["train"]),
        ("krontime train data=ucr", ["data=ucr", "data=ucr_text"]),
        ("krontime train data.batch", ["data.batch_size="]),
        ("krontime train data=npz data.pat", ["data.path="]),
        ("krontime predict thr", ["threshold."]),
        ("krontime predict threshold.r", ["threshold.recall="]),
        ("krontime predict follow=", ["follow=true", "follow=false"]),
        ("krontime predict input=", []),
        ("krontime train qui", ["quiet="]),
        ("krontime nothing a", []),
    ],
)
def test_a_line_is_completed(line, expected):
    assert completions(line) == expected


def test_an_empty_word_offers_commands_then_keys():
    assert set(COMMANDS) < set(completions("krontime "))
    offered = completions("krontime train ")
    assert {"model=", "data=", "data.", "seed=", "--help"} <= set(offered)
    assert len(offered) < 60


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_of_a_shell_is_printed(shell, capsys):
    cli.main(["--shell-completion", f"install={shell}"])
    assert "krontime --shell-completion query" in capsys.readouterr().out


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--shell-completion", "install=csh"])
    assert stopped.value.code == 2
    assert "expected one of install=bash, install=zsh, install=fish" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "expected"), [("krontime tra", ["train"]), ("krontime train data=uc", ["ucr", "ucr_text"])]
)
def test_bash_offers_what_is_answered(line, expected):
    offered = "\n".join(completions(line))
    script = f"""
krontime() {{ echo '{offered}'; }}
compopt() {{ :; }}
{SCRIPTS["bash"]}
COMP_LINE='{line}' COMP_POINT={len(line)}
_krontime
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == expected
