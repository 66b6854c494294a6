"""Where the configs are, and what they say of themselves in their comments."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

PACKAGE = Path(__file__).parents[1]


def config_dir() -> Path:
    """The checkout's `configs/` when running from one, else the copy that the wheel carries."""
    checkout = PACKAGE.parent.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "configs").is_dir():
        return checkout / "configs"
    return PACKAGE / "configs"


def options(group: str) -> list[str]:
    """Names of the choices of a config group, for example of `data`."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def summary(config: Path) -> str:
    """The comment that a config opens with, as one line."""
    lines = []
    for line in config.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines)


def described_keys(config: Path) -> list[tuple[str, str, str]]:
    """`(dotted key, default, meaning)` of every key of a config that carries a trailing `# meaning`."""
    text = config.read_text(encoding="utf-8")
    lines = text.splitlines()
    described = []
    for key, name, value in _pairs(yaml.compose(text)):
        is_scalar = value.start_mark.line == name.end_mark.line
        end = value.end_mark if is_scalar else name.end_mark
        comment = re.match(r":?\s*# (?P<meaning>.*)", lines[end.line][end.column :].strip())
        if comment:
            described.append((key, _typed(value, text) if is_scalar else "", comment["meaning"]))
    return described


def default_groups(config: Path) -> dict[str, str]:
    """`{group: default choice}` of a config's defaults list, and of the configs that it is built on."""
    text = config.read_text(encoding="utf-8")
    entries = _defaults(text)
    groups: dict[str, str] = {}
    for base in _bases(config, entries):
        groups |= default_groups(base)
    for entry in entries:
        if isinstance(entry, yaml.MappingNode):
            name, choice = entry.value[0]
            group = name.value.removeprefix("optional ").lstrip("/").partition("@")[0]
            if not group.startswith("override "):
                groups[group] = _typed(choice, text)
    return groups


def bases(config: Path) -> list[Path]:
    """The configs of its own folder that a config is built on."""
    return _bases(config, _defaults(config.read_text(encoding="utf-8")))


def _bases(config: Path, entries: list[yaml.Node]) -> list[Path]:
    names = [entry.value.removesuffix("@_here_") for entry in entries if isinstance(entry, yaml.ScalarNode)]
    files = [config.parent / f"{name}.yaml" for name in names if name != "_self_"]
    return [file for file in files if file.is_file()]


def _defaults(text: str) -> list[yaml.Node]:
    """The entries of a config's defaults list."""
    root = yaml.compose(text)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return next((value.value for name, value in pairs if name.value == "defaults"), [])


def _pairs(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.ScalarNode, yaml.Node]]:
    """Every key below a node, dotted, with the nodes of its name and its value."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            key = f"{prefix}{name.value}"
            yield key, name, value
            yield from _pairs(value, f"{key}.")


def _typed(node: yaml.Node, text: str) -> str:
    """A value as it stands in the text."""
    return text[node.start_mark.index : node.end_mark.index]
