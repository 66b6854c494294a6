"""The command line: `krontime COMMAND [overrides]`.

Nothing heavy is imported here; each command imports what it needs when it runs.
"""

import faulthandler
import os
import sys
from collections.abc import Sequence

from krontime import __version__
from krontime.commands import COMMANDS
from krontime.commands.completion import FLAG, answer
from krontime.commands.help import OUTPUT_KEYS, help_of, overview
from krontime.config import files as config_files
from krontime.config.names import nearest
from krontime.console import fail, is_quiet, output, result
from krontime.console.streams import safe_streams
from krontime.errors import UserError

EXIT_INTERRUPTED = 130

HELP = ("-h", "--help", "help")
VERSION = ("--version", "-V", "version")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `krontime` command; exits with 2 on a mistake of the user's.

    An interruption ends the process by SIGINT, once all is cleaned up: a shell script that runs it then ends too, which
    it would not after an exit with a code. With `argv`, in a process of another program, it is a `SystemExit` with 130.
    """
    spin_briefly()
    with safe_streams(is_last=argv is None):
        _main(list(sys.argv[1:] if argv is None else argv), is_last=argv is None)


def spin_briefly() -> None:
    """Let threads that wait for work give their core away soon, unless the user has set how long they hold on to it.

    PyTorch's OpenMP reads it once, when it is imported. Threads that spin slow each step down several times where other
    processes want the cores too.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


def _main(arguments: list[str], *, is_last: bool) -> None:
    if arguments[:1] and arguments[0] in HELP:  # `help train` is `train --help`
        arguments = [*arguments[1:], "--help"] if arguments[1:] else []
    if not arguments:
        sys.stdout.write(overview())
        return
    if arguments[0] in VERSION or "--version" in arguments[1:]:
        sys.stdout.write(f"krontime {__version__}\n")
        return
    if arguments[0] == FLAG:
        try:
            sys.stdout.write(answer(arguments[1:]))
        except ValueError as error:
            fail([str(error)])
        return
    command, *overrides = arguments
    if command not in COMMANDS:
        fail([_no_command(command)])
    if asked := [argument for argument in overrides if argument in HELP or argument == "--help=all"]:
        is_whole = "--help=all" in asked or "all" in overrides
        shown = [argument for argument in overrides if argument not in asked and argument != "all"]
        for part in help_of(command, shown, is_whole=is_whole):
            sys.stdout.write(part)
            sys.stdout.flush()
        return
    wanted, overrides, problems = output_keys(overrides)
    with output(quiet=wanted["quiet"], as_json=wanted["json"]):
        result(command=command)
        if problems:
            fail(problems)
        try:
            os.getcwd()
        except OSError as error:
            fail([f"the folder that this is run in is gone ({error.strerror}): expected another one (cd FOLDER)"])
        _show_start(command, overrides)
        try:
            _run(command, overrides)
        except KeyboardInterrupt:
            result(status="interrupted")
            sys.stderr.write("krontime: interrupted\n")
            if not is_last:
                sys.exit(EXIT_INTERRUPTED)
            sys.excepthook = lambda *_: None  # no traceback; Python sends itself the signal at its end
            raise


def output_keys(arguments: Sequence[str]) -> tuple[dict[str, bool], list[str], list[str]]:
    """Which of `quiet` and `json` are asked for, all other arguments, and a line for each that can't be read."""
    wanted, others, problems = dict.fromkeys(OUTPUT_KEYS, False), [], []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in OUTPUT_KEYS or "=" not in argument:
            others.append(argument)
        elif value.lower() in ("true", "false"):
            wanted[key] = value.lower() == "true"
        else:
            problems.append(f"{argument}: expected {key}=true or {key}=false")
    return wanted, others, problems


def _no_command(given: str) -> str:
    if given.startswith("-"):
        return f"{given}: there is no such option; expected --help, --version, or a command such as krontime train"
    if "=" in given:
        return f"{given}: expected a command before it, such as krontime train {given}"
    hint = f" (did you mean {near}?)" if (near := nearest(given, COMMANDS)) else ""
    return f"{given!r} is not a command: expected one of {', '.join(COMMANDS)}{hint}"


def _show_start(command: str, overrides: Sequence[str]) -> None:
    """Say on a terminal what was understood: what is imported next takes a few seconds."""
    is_first = all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    if is_first and not is_quiet() and sys.stderr.isatty():
        sys.stderr.write(f"krontime {__version__}: {' '.join([command, *overrides])}\n")
        sys.stderr.flush()


def _run(command: str, arguments: list[str]) -> None:
    """Compose the command's config and run it under Hydra."""
    from krontime.commands.inferred import with_data
    from krontime.config.overrides import explained, is_multirun, option_problems, options_first, quoted, renamed

    arguments = list(map(renamed, arguments))
    if problems := option_problems(arguments):
        fail(problems)
    try:
        arguments = with_data(command, arguments)
    except UserError as error:
        fail(error.problems)
    is_sweep = is_multirun(arguments)
    arguments = [quoted(argument, is_sweep=is_sweep) for argument in arguments]
    import hydra

    from krontime.commands.hydra_task import Task
    from krontime.config.hydra_guard import checked_loading

    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a mapped file that is cut short ends a process without a word otherwise
    task = Task(command, sys.argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors reach this function
    try:
        sys.argv = [f"krontime {command}", *options_first(arguments)]
        with checked_loading():
            hydra.main(version_base="1.3", config_path=str(config_files.config_dir()), config_name=command)(task)()
    except UserError as error:
        fail(error.problems)
    except Exception as error:
        if task.begun:
            result(status="failed", error=f"{type(error).__name__}: {error}")
            raise
        fail(explained(command, arguments, error))
    finally:
        sys.argv = task.command_line
