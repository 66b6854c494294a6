"""What a user types after the command: corrected where that is safe, and explained where Hydra refuses it."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from krontime.config.files import config_dir, default_groups, options
from krontime.config.names import nearest
from krontime.config.text_keys import LISTS, PATHS, is_list_of_text, is_never_null, is_text
from krontime.errors import UserError
from krontime.storage import is_address

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

SWITCHES = ("-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "--version", "-sc", "--shell-completion")
WITH_VALUE = (
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    *("-i", "--info"),
)
"""Hydra's own options, but for `--experimental-rerun`, which reads a pickle."""

SWEEP = r"(choice|range|interval|glob|sort|shuffle|tag)\("

LAUNCHER_EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}
"""Launchers that come with an extra of krontime's; that for Ray says so itself."""


def is_multirun(arguments: Sequence[str]) -> bool:
    """Whether Hydra is asked for one job for each value of a list."""
    modes = [argument.lstrip("+").removeprefix("hydra.mode=") for argument in arguments if "hydra.mode=" in argument]
    return "-m" in arguments or "--multirun" in arguments or [mode.upper() for mode in modes[-1:]] == ["MULTIRUN"]


def option_problems(arguments: Sequence[str]) -> list[str]:
    """A line for each option that Hydra does not know, such as `--seed=3` for `seed=3`, or that has no effect.

    And for each path without any text, as where a shell's variable was not set, or that is an address.
    """
    problems = [
        f"{argument}: expected a path; . is the folder that this is run in"
        for argument in arguments
        if argument.endswith("=") and argument.lstrip("+").removesuffix("=") in PATHS
    ]
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        address = value.lstrip("['\"")
        if key in (*PATHS, *LISTS) and is_address(address):
            scheme = address.partition(":")[0]  # a password may follow
            problems.append(
                f"{key}={scheme}://...: expected a path on this machine; data.path, data.train and data.test may be "
                "addresses"
            )
    is_single = not is_multirun(arguments) and not {"-c", "--cfg", "-i", "--info"} & set(arguments)
    for argument in arguments:
        name = argument.partition("=")[0]
        if is_single and name.startswith(("hydra/launcher", "hydra.launcher.")):
            problems.append(f"{argument}: has no effect on a single run; expected -m, for one job for each value")
        if not argument.startswith("-") or name in (*SWITCHES, *WITH_VALUE):
            continue
        problems.append(f"{argument}: there is no such option; expected {_without_dashes(name.lstrip('-'), argument)}")
    return problems


def _without_dashes(name: str, argument: str) -> str:
    """What would be right instead of an option with dashes."""
    if name in ("quiet", "q", "json"):
        return f"{'quiet' if name == 'q' else name}=true"
    if name in ("v", "verbose"):
        return "--version, or hydra.verbose=true for all that is logged"
    plain = argument.lstrip("-")
    return f"key=value without dashes, such as {plain if '=' in plain else f'{plain}=VALUE'}"


RENAMED = {"read_out=none": "closed_form=none"}
"""Overrides of earlier versions that still say the same; all others of such groups are answered as unknown."""


def renamed(argument: str) -> str:
    """An override under its present name."""
    return RENAMED.get(argument, argument)


def options_first(arguments: Sequence[str]) -> list[str]:
    """The same arguments with Hydra's own options in front, wherever they were typed."""
    overrides = list(_overrides(arguments))
    options, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("-"):
            options.append(argument)
        skip = argument in WITH_VALUE
    return [*options, *overrides]


def quoted(argument: str, *, is_sweep: bool = False) -> str:
    """An override as Hydra can read it: a value that it can't read otherwise, such as a path with an accent, in quotes.

    So is what stands for a path or a name, where Hydra would make a number, a list or a sweep of it, as of `2024`,
    `1_0` and `trial 1,2.npz`; in a sweep commas separate its jobs. A `~` that a path starts with, which no shell
    expands there, becomes the home folder. Other values that begin like a list, a dict or a quoted text stay as they
    are.
    """
    key, equals, value = argument.partition("=")
    if value == "~" or value.startswith("~/"):
        value = os.path.expanduser(value)
        argument = f"{key}={value}"
    if argument.startswith("-") or not equals or not value or value[0] in "'\"" or "${" in value:
        return argument
    if is_list_of_text(key) and re.fullmatch(r"\[[^\[\]{}'\"]*\]", value):
        return f"{key}=[{','.join(_text(item.strip()) for item in value[1:-1].split(',') if item.strip())}]"
    if (value != "null" or is_never_null(key)) and (is_text(key) or (is_list_of_text(key) and value[0] != "[")):
        if is_sweep and re.match(SWEEP, value):
            return argument
        parts = value.split(",") if is_sweep and value[0] not in "[{" else [value]
        return f"{key}={','.join(map(_text, parts))}"
    if value[0] in "[{" or _parsed(argument):
        return argument
    candidate = f"{key}={_in_quotes(value)}"
    return candidate if _parsed(candidate) else argument


def _text(value: str) -> str:
    """A value in quotes where Hydra would not take it as the text that it is."""
    override = _parsed(f"key={value}")
    if override is not None and not override.is_sweep_override():
        read = override.value()
        if isinstance(read, str) and str(read) == value:
            return value
    return _in_quotes(value)


def _in_quotes(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def explained(command: str, arguments: Sequence[str], error: Exception) -> list[str]:
    """Every override that Hydra refuses, not only the first; each with what would be right.

    Args:
        command: whose config they were given to.
        arguments: as typed.
        error: what composing them all gave.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    for cause in _causes(error):
        if isinstance(cause, UserError):
            return cause.problems
    problems: list[str] = []
    groups: list[tuple[str, Override]] = []
    values: list[tuple[str, Override]] = []
    own: list[str] = []  # Hydra's part, which is not in the config that composing gives
    for text in _overrides(arguments):
        override = _parsed(text)
        if override is None:
            problems.append(_not_an_override(command, text))
        elif override.is_sweep_override() and not is_multirun(arguments):
            key, _, value = text.partition("=")
            as_list = "" if os.path.isdir(config_dir() / key) else f", for a list write {key}=[{value}]"
            problems.append(f"{text}: expected one value; for one run each add -m{as_list}")
        elif override.is_hydra_override():
            own.append(text)
        elif os.path.isdir(config_dir() / override.key_or_group):  # pathlib's raises where a name is too long
            groups.append((text, override))
        else:
            values.append((text, override))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        accepted, config = _accepted_groups(command, groups, problems)
        refused = {override.key_or_group for text, override in groups if text not in accepted}
        refused -= {override.key_or_group for _, override in groups if override.is_sweep_override()}
        for text, override in values:
            if override.key_or_group.partition(".")[0] in refused:
                continue  # nobody knows what keys that choice would have
            if not (override.is_add() or override.is_force_add()) and (problem := _no_such_key(text, override, config)):
                problems.append(problem)
        single = [text for text, override in values if not override.is_sweep_override()]
        for text in [] if problems else [*single, *own]:
            try:
                config = _compose(command, [*accepted, text])
            except Exception as refused:
                problems.append(_not_installed(text) or f"{text}: {str(refused.__cause__ or refused).splitlines()[0]}")
            else:
                accepted.append(text)
    problems += [] if problems else [f"{key}=...: expected a value, and none is given" for key in _missing(config)]
    if not problems and isinstance(error, OSError):
        return [f"{error.filename}: cannot be made ({error.strerror}); expected paths.output=FOLDER to be writable"]
    return problems or [next((line for line in str(error).splitlines() if line.strip()), repr(error))]


def _overrides(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments without Hydra's own options and their values."""
    skip = False
    for argument in arguments:
        if not skip and not argument.startswith("-"):
            yield argument
        skip = argument in WITH_VALUE


def _parsed(text: str) -> "Override | None":
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, ValueError, RecursionError):  # such as a number of thousands of digits
        return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _compose(command: str, overrides: list[str]) -> dict[str, Any]:
    """The config with its interpolations left as they are."""
    from hydra import compose
    from omegaconf import OmegaConf

    return dict(OmegaConf.to_container(compose(command, overrides)))  # type: ignore[arg-type]


_KEY_OF_A_PATH = {
    **dict.fromkeys(("evaluate", "predict", "explain", "export", "report", "probe"), "run"),
    **dict.fromkeys(("train", "tune", "data"), "data.path"),
    "sweep-status": "outputs",
    "verify": "table",
}
"""What is most likely meant by a path without a key."""


def _not_an_override(command: str, text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        meant = _KEY_OF_A_PATH.get(command)
        return f"{text}: expected key=value" + (
            f", such as {meant}={text}" if meant == "run" or (meant and os.path.exists(text)) else ""
        )
    if not re.fullmatch(r"[\w@./+~:-]+", key):
        return f"{text}: {key!r} is no name of a key; expected key=value"
    return f"{text}: the value {value!r} cannot be read; expected a number, a word, [a, list], or text in quotes"


def _accepted_groups(
    command: str, groups: list[tuple[str, "Override"]], problems: list[str]
) -> tuple[list[str], dict[str, Any]]:
    """The group choices that work together, in an order that puts those of nested groups last, and their config."""
    own = default_groups(config_dir() / f"{command}.yaml")
    accepted: list[str] = []
    config = _compose(command, accepted)
    for text, override in sorted(groups, key=lambda item: item[1].key_or_group not in own):
        group = override.key_or_group
        if unknown := _unknown_choices(override):
            near = nearest(unknown[0], options(group))
            hint = f" (did you mean {near}?)" if near else ""
            if group == "data" and os.path.exists(unknown[0]):
                hint = f"; files of your own are given as data.path={unknown[0]}"
            problems.append(f"{text}: expected {group} to be one of {', '.join(options(group))}{hint}")
            continue
        if override.is_sweep_override():
            continue
        try:
            config = _compose(command, [*accepted, text])
            accepted.append(text)
        except Exception as error:
            if "defaults list" in str(error):  # a group that another choice would bring
                problems.append(f"{text}: has no effect, since nothing chosen here has a {group}")
            else:
                problems.append(f"{text}: {str(error).splitlines()[0]}")
    return accepted, config


def _unknown_choices(override: "Override") -> list[str]:
    """Choices of a group override that are no files of the group."""
    if override.is_delete():
        return []
    if override.is_sweep_override():
        chosen: list[Any] = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
    else:
        value = override.value()
        chosen = value if isinstance(value, list) else [value]
    names = options(override.key_or_group)
    return ["null" if name is None else str(name) for name in chosen if name not in names]


def _no_such_key(text: str, override: "Override", config: dict[str, Any]) -> str | None:
    """One line on a key that is not there, with the nearest that are; None for one that is."""
    node: Any = config
    parts = override.key_or_group.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, dict):
            return f"{text}: {'.'.join(parts[:depth])} is one value and has no keys of its own"
        if part not in node:
            break
        node = node[part]
    else:
        return None
    siblings = [str(key) for key in node if not str(key).startswith("_")]
    if not depth:
        siblings += [path.name for path in config_dir().iterdir() if path.is_dir()]
    prefix = "".join(f"{parent}." for parent in parts[:depth])
    problem = f"{text}: there is no key {prefix}{part}"
    paths = sorted(_key_paths(config), key=lambda path: (path.count("."), path))
    if depth == 0 and (same := [path for path in paths if path.rpartition(".")[2] == parts[-1]]):
        return f"{problem} (did you mean {same[0]}?)"
    if near := nearest(part, siblings, cutoff=0.7):
        hint = "".join((prefix, near, *(f".{rest}" for rest in parts[depth + 1 :])))
        return f"{problem} (did you mean {hint}?)"
    last_parts = {path.rpartition(".")[2]: path for path in reversed(paths)}
    if depth == 0 and (near := nearest(parts[-1], last_parts, cutoff=0.7)):
        return f"{problem} (did you mean {last_parts[near]}?)"
    return f"{problem} (expected one of {', '.join(sorted(set(siblings)))})"


def _not_installed(text: str) -> str | None:
    """One line on a launcher that could be there; None for anything else."""
    group, _, name = text.partition("=")
    if group != "hydra/launcher" or name not in LAUNCHER_EXTRAS:
        return None
    return f"{text}: is not installed; expected pip install 'krontime[{LAUNCHER_EXTRAS[name]}]' before"


def _missing(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _missing(value, f"{prefix}{key}.")
        elif value == "???":
            yield f"{prefix}{key}"


def _key_paths(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _key_paths(value, f"{prefix}{key}.")
