"""Where the configs are, and what they say of themselves in their comments."""

import re
from pathlib import Path

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
    parents: list[tuple[int, str]] = []
    found = []
    for line in config.read_text(encoding="utf-8").splitlines():
        match = re.match(r"^(?P<indent> *)(?P<key>[\w/@-]+):(?: +(?P<value>[^\s#].*?))?(?: +# (?P<meaning>.*))?$", line)
        if not match:
            continue
        indent = len(match["indent"])
        parents = [parent for parent in parents if parent[0] < indent]
        parents.append((indent, match["key"]))
        if match["meaning"]:
            found.append((".".join(key for _, key in parents), match["value"] or "", match["meaning"]))
    return found


def default_groups(config: Path) -> dict[str, str]:
    """`{group: default choice}` of a config's defaults list, read from its text."""
    text = config.read_text(encoding="utf-8")
    block = re.search(r"^defaults:\n((?: +-.*\n|\s*#.*\n)+)", text, flags=re.MULTILINE)
    if not block:
        return {}
    found = re.findall(r"^ +- (?:optional )?(?:/)?([\w/]+)(?:@[\w.]+)?: *([^#\n]*)", block[1], flags=re.MULTILINE)
    inherited = [default_groups(base) for base in bases(config)]
    return {group: choice for groups in inherited for group, choice in groups.items()} | {
        group: choice.strip() for group, choice in found
    }


def bases(config: Path) -> list[Path]:
    """The configs of its own folder that a config is built on."""
    names = re.findall(r"^ +- ([\w/]+)(?:@_here_)?\s*$", config.read_text(encoding="utf-8"), flags=re.MULTILINE)
    files = [config.parent / f"{name}.yaml" for name in names if name != "_self_"]
    return [file for file in files if file.is_file()]
