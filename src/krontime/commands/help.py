"""What `--help` prints: what the schema says of each key, and the configs of a class's own options; nothing heavy."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from krontime.commands import COMMANDS
from krontime.config import files as config_files

WIDTH = 98
_COLUMN = 36
"""Where the meaning of a key begins."""

SECTIONS = {
    "data": ("data", "paths.data", "paths.cache"),
    "model": ("model", "tokenizer", "decomposition", "closed_form"),
    "training": (
        "optim",
        "trainer",
        "callbacks",
        "loss",
        "augment",
        "score",
        "seed",
        "compile",
        "checkpoint_every_n_steps",
    ),
    "output": ("paths.output", "logger", "force", "experiment"),
}
"""Groups and keys of `train` by what they are about; what stands in none comes first."""

COMMON = (
    *("data.name", "data.path", "data.batch_size", "data.scaling", "data.validation.method", "paths.data"),
    *("model.depth", "model.attention", "model.d_model", "model.num_layers", "decomposition.depth"),
    *("optim.optimizer.lr", "trainer.accelerator", "trainer.devices", "trainer.precision", "trainer.max_epochs"),
    *("loss.class_weights", "seed", "force", "paths.output", "logger.wandb.offline"),
)
"""Keys of `train` that the short help names; that of commands built on it names their own keys besides."""

_SHORTENED = ("train", "tune", "overhead")
"""Commands with too many keys to name them all at once."""

OUTPUT_KEYS = ("quiet", "json")
"""What every command takes, and no config holds: how much is said changes no run."""

_OUTPUT_LINES = (
    ("quiet=false", "true for results and warnings alone: no progress, no notices"),
    ("json=false", "true for one JSON object on standard output, and nothing else there"),
)

START = """\
where to start:
  krontime train                                  the default model on ACSF1, which comes with krontime
  krontime train data=audio data.path=FOLDER      a folder of recordings, one folder of files a class
  krontime predict run=RUN input=FILE output=classes.csv
  krontime data                                   the data sets and kinds of files that can be read
"""


def overview() -> str:
    """What `krontime` alone prints."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {command:<{width}}  {meaning}" for command, (_, meaning) in COMMANDS.items())
    return (
        "krontime: classify long time series with Kronecker-decomposed attention.\n\n"
        f"usage: krontime COMMAND [key=value ...]\n\n{START}\ncommands:\n{commands}\n\n"
        "krontime COMMAND --help lists a command's groups and keys, krontime --version the version;\n"
        "krontime --shell-completion install=bash (zsh, fish) prints what makes the shell complete them.\n"
        "Exit codes: 0 all went well, 2 a mistake in what was given, 130, 143 and 129 ended by SIGINT,\n"
        "SIGTERM and SIGHUP, 1 a fault of the program.\n"
    )


def help_of(command: str, overrides: Sequence[str], *, is_whole: bool) -> Iterator[str]:
    """Groups and keys of a command, those of the choices among the overrides and of the default ones else.

    What the command does comes at once, before what takes long to import.

    Args:
        command: its name.
        overrides: choices of groups; anything else is left aside.
        is_whole: every key, and not only the common ones.
    """
    yield "\n".join([*_wrapped(f"krontime {command}: {COMMANDS[command][1]}"), "\n"])
    groups, keys = groups_and_keys(command, overrides)
    shown = keys if is_whole or command not in _SHORTENED else _common(command, keys)
    lines = [*_wrapped(config_files.summary(config_files.config_dir() / f"{command}.yaml")), ""]
    lines.append(f"usage: krontime {command} [group=choice ...] [key=value ...]   (-m: one run for each of a,b,c)")
    if groups:
        lines += ["", "groups (group=choice; * marks the choice whose keys follow: name others before --help):"]
        for group, (names, chosen) in groups.items():
            marked = " ".join(name + "*" * (name in chosen) for name in names)
            lines += _wrapped(f"  {group:<14} {marked}", indent=17)
    for section, named in _by_section(shown).items():
        lines += ["", f"{section} keys (key=value), with their defaults:".lstrip()]
        for key, (default, meaning) in named.items():
            lines += _described(f"{key}={default}", meaning)
    lines += ["", "of every command:"]
    for key, meaning in _OUTPUT_LINES:
        lines += _described(key, meaning)
    if len(shown) < len(keys):
        lines += ["", f"The same with --help all lists {len(keys) - len(shown)} more keys."]
    yield "\n".join(lines) + "\n"


def _common(command: str, keys: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """The keys that the short help of a command names."""
    own = [] if command == "train" else config_files.described_keys(config_files.config_dir() / f"{command}.yaml")
    return {key: keys[key] for key in (*(key for key, *_ in own), *COMMON) if key in keys}


def groups_and_keys(
    command: str, overrides: Sequence[str]
) -> tuple[dict[str, tuple[list[str], set[str]]], dict[str, tuple[str, str]]]:
    """By group its choices and those that are chosen; by key its default and its meaning."""
    root = config_files.config_dir()
    config = root / f"{command}.yaml"
    given = {group: choice for group, _, choice in (text.partition("=") for text in overrides)}

    def files_of(group: str, choice: str) -> list[Path]:
        names = [name.strip() for name in choice.strip("[]").split(",")]
        return [root / group / f"{name}.yaml" for name in names if name in config_files.options(group)]

    def chosen(defaults: Mapping[str, str]) -> dict[str, str]:
        own = {group: given[group] for group in defaults if group in given and files_of(group, given[group])}
        return {**defaults, **own}

    groups = chosen({group: it for group, it in config_files.default_groups(config).items() if group != "hydra"})
    nested: dict[str, str] = {}
    for group, choice in groups.items():
        for file in files_of(group, choice):
            nested |= config_files.default_groups(file)
    groups |= chosen({group: it for group, it in nested.items() if (root / group).is_dir() and "/" not in group})
    files = [("", base) for base in _bases(config)]
    for group, choice in groups.items():
        files += [(group, base) for file in files_of(group, choice) for base in _bases(file)]
    from krontime.config.descriptions import descriptions  # with pydantic, a fifth of a second

    meanings = descriptions(command)
    keys = {}  # what a choice sets takes the place of what it is built on
    for prefix, file in files:
        for name, default, comment in config_files.described_keys(file):
            key = f"{prefix}.{name}" if prefix else name
            keys[key] = (default, meanings.get(key, comment))
    choices = {
        group: (config_files.options(group), {file.stem for file in files_of(group, choice)})
        for group, choice in groups.items()
    }
    return choices, keys


def _by_section(keys: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, tuple[str, str]]]:
    """The keys of each section, in the order of the sections; of one alone, without a name, where there is but one."""
    sections: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in ("", *SECTIONS)}
    for key, value in keys.items():
        section = next(
            (name for name, starts in SECTIONS.items() if any(f"{key}.".startswith(f"{start}.") for start in starts)),
            "",
        )
        sections[section][key] = value
    filled = {name: named for name, named in sections.items() if named}
    return filled if len(filled) > 1 and len(keys) > 15 else {"": dict(keys)}


def _described(key: str, meaning: str) -> list[str]:
    start = f"  {key}"
    if len(start) > _COLUMN - 2:
        return [start, *_wrapped(" " * _COLUMN + meaning, indent=_COLUMN)]
    return _wrapped(f"{start:<{_COLUMN}}{meaning}", indent=_COLUMN)


def _wrapped(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _bases(config: Path) -> list[Path]:
    """A config, after those that it is built on."""
    return [file for base in config_files.bases(config) for file in _bases(base)] + [config]
