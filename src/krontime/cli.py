"""The command line: `krontime VERB [overrides]`.

Nothing heavy is imported here; each verb imports what it needs when it runs.
"""

import difflib
import faulthandler
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from krontime import __version__
from krontime.commands import COMMANDS
from krontime.config import files as config_files
from krontime.console import fail, safe_streams
from krontime.errors import UserError

EXIT_INTERRUPTED = 130


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
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return
    if arguments[0] == "--version":
        sys.stdout.write(f"krontime {__version__}\n")
        return
    verb, *overrides = arguments
    if verb not in COMMANDS:
        near = difflib.get_close_matches(verb, COMMANDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        fail([f"{verb!r} is not a verb: expected one of {', '.join(COMMANDS)}{hint}"])
    if "-h" in overrides or "--help" in overrides:
        sys.stdout.write(_verb_help(verb, overrides))
        return
    try:
        _run(verb, overrides)
    except KeyboardInterrupt:
        sys.stderr.write("krontime: interrupted\n")
        if not is_last:
            sys.exit(EXIT_INTERRUPTED)
        sys.excepthook = lambda *_: None  # no traceback; Python sends itself the signal at its end
        raise


def _run(verb: str, arguments: list[str]) -> None:
    """Compose the verb's config and run it under Hydra."""
    from krontime.config.overrides import explained, option_problems, options_first, quoted

    if problems := option_problems(arguments):
        fail(problems)
    import hydra

    from krontime.commands.hydra_task import Task
    from krontime.config.hydra_guard import checked_loading

    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a mapped file that is cut short ends a process without a word otherwise
    task = Task(verb, sys.argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors reach this function
    try:
        sys.argv = [f"krontime {verb}", *map(quoted, options_first(arguments))]
        with checked_loading():
            hydra.main(version_base="1.3", config_path=str(config_files.config_dir()), config_name=verb)(task)()
    except UserError as error:
        fail(error.problems)
    except Exception as error:
        if task.begun:
            raise
        fail(explained(verb, arguments, error))
    finally:
        sys.argv = task.command_line


def _overview() -> str:
    width = max(map(len, COMMANDS))
    verbs = "\n".join(f"  {verb:<{width}}  {meaning}" for verb, (_, meaning) in COMMANDS.items())
    return (
        "krontime: classify long time series with Kronecker-decomposed attention.\n\n"
        f"usage: krontime VERB [key=value ...]\n\nverbs:\n{verbs}\n\n"
        "krontime VERB --help lists a verb's groups and keys.\n"
    )


def _verb_help(verb: str, overrides: Sequence[str]) -> str:
    """Groups and keys of a verb, those of the choices among the overrides and of the default ones else."""
    root = config_files.config_dir()
    config = root / f"{verb}.yaml"
    given = {group: choice for group, _, choice in (text.partition("=") for text in overrides)}

    def files_of(group: str, choice: str) -> list[Any]:
        names = [name.strip() for name in choice.strip("[]").split(",")]
        return [root / group / f"{name}.yaml" for name in names if name in config_files.options(group)]

    def chosen(defaults: Mapping[str, str]) -> dict[str, str]:
        own = {group: given[group] for group in defaults if group in given and files_of(group, given[group])}
        return {**defaults, **own}

    lines = [f"krontime {verb}: {COMMANDS[verb][1]}", "", config_files.summary(config), ""]
    lines.append(f"usage: krontime {verb} [group=choice ...] [key=value ...]   (-m: one run for each of a,b,c)")
    groups = chosen(
        {group: choice for group, choice in config_files.default_groups(config).items() if group != "hydra"}
    )
    nested: dict[str, str] = {}
    for group, choice in groups.items():
        for file in files_of(group, choice):
            nested |= config_files.default_groups(file)
    groups |= chosen({group: it for group, it in nested.items() if (root / group).is_dir() and "/" not in group})
    if groups:
        lines += ["", "groups (group=choice; * marks the choices whose keys follow: name others before --help):"]
        for group, choice in groups.items():
            these = {file.stem for file in files_of(group, choice)}
            names = [name + ("*" if name in these else "") for name in config_files.options(group)]
            lines.append(f"  {group:<14} {' '.join(names)}")
    lines += ["", "keys (key=value), with their defaults:"]
    files = [("", base) for base in _bases(config)]
    for group, choice in groups.items():
        files += [(group, base) for file in files_of(group, choice) for base in _bases(file)]
    keys = {}  # what a choice sets takes the place of what it is built on
    for prefix, file in files:
        for key, default, meaning in config_files.described_keys(file):
            keys[f"{prefix}.{key}" if prefix else key] = (default, meaning)
    lines += [f"  {f'{key}={default}':<44} {meaning}" for key, (default, meaning) in keys.items()]
    return "\n".join(lines) + "\n"


def _bases(config: Any) -> list[Any]:
    """A config, after those that it is built on."""
    return [found for file in config_files.bases(config) for found in _bases(file)] + [config]
