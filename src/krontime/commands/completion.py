"""Completion in a shell: commands, groups, choices and keys, read from the configs as help is."""

from collections.abc import Mapping, Sequence

from krontime.commands import COMMANDS
from krontime.commands.help import OUTPUT_KEYS, groups_and_keys

FLAG = "--shell-completion"

SCRIPTS: Mapping[str, str] = {
    "bash": """\
_krontime() {
    local line=${COMP_LINE:0:COMP_POINT}
    local word=${line##* } REPLY
    COMPREPLY=()
    while IFS= read -r; do
        [[ $word == *=* ]] && REPLY=${REPLY#"${word%%=*}="}
        COMPREPLY+=("$REPLY")
    done < <(krontime --shell-completion query "$line" 2>/dev/null)
    [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
}
complete -o default -F _krontime krontime
""",
    "zsh": """\
_krontime() {
    local -a offered
    offered=("${(@f)$(krontime --shell-completion query "$LBUFFER" 2>/dev/null)}")
    if [[ -n $offered[1] ]]; then
        compadd -Q -S '' -- $offered
    else
        compset -P '*='
        _files
    fi
}
compdef _krontime krontime
""",
    "fish": "complete -c krontime -a '(krontime --shell-completion query (commandline -cp))'\n",
}
"""By shell, what makes it complete `krontime`."""


def answer(arguments: Sequence[str]) -> str:
    """What `krontime --shell-completion ARGUMENTS` prints.

    Args:
        arguments: `install=SHELL` for the script of a shell, or `query` and the line up to the cursor.

    Raises:
        ValueError: neither was given.
    """
    first = arguments[0] if arguments else ""
    key, _, shell = first.partition("=")
    if key == "install" and shell in SCRIPTS:
        return SCRIPTS[shell]
    if first == "query" and len(arguments) == 2:
        return "".join(f"{text}\n" for text in completions(arguments[1]))
    shells = ", ".join(f"install={name}" for name in SCRIPTS)
    raise ValueError(f"{FLAG} {' '.join(arguments)}".rstrip() + f": expected one of {shells}")


def completions(line: str) -> list[str]:
    """What the last word of a line can become; nothing where it is a path or a value of any kind."""
    _, *words = line.split() + ([""] if line.endswith(" ") else [])
    if len(words) < 2:
        return sorted(_beginning(words[0] if words else "", [*COMMANDS, "help", "--help", "--version"]))
    command, *before, word = words
    if command == "help":
        return sorted(_beginning(word, COMMANDS))
    if command not in COMMANDS:
        return []
    groups, keys = groups_and_keys(command, before)
    group, equals, _ = word.partition("=")
    if equals:
        default = keys.get(group, ("", ""))[0]
        choices = groups[group][0] if group in groups else ["true", "false"] if default in ("true", "false") else []
        return _beginning(word, [f"{group}={value}" for value in choices])
    values = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    names = [f"{name}=" for name in (*groups, *values, *OUTPUT_KEYS)]
    return sorted({_to_next_dot(name, word) for name in _beginning(word, names)} | set(_beginning(word, ["--help"])))


def _beginning(word: str, texts: Sequence[str] | Mapping[str, object]) -> list[str]:
    return [text for text in texts if text.startswith(word)]


def _to_next_dot(name: str, word: str) -> str:
    """A key as far as the next dot after what is typed, so that hundreds of keys come level by level."""
    at = name.find(".", len(word))
    return name if at < 0 else name[: at + 1]
