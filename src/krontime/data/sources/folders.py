"""How a folder of recordings is laid out: which folders are splits, which are classes, and what lies beside them."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from krontime.data.sources.files import files_below
from krontime.errors import UserError

Part = Literal["train", "validation", "test"]

SPLIT_NAMES: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training", "trainset", "trainingset", "trn", "traindata", "trainingdata"),
    "validation": ("val", "valid", "validation", "validate", "validationset", "valset", "dev", "devel", "development"),
    "test": ("test", "testing", "testset", "tst", "eval", "evaluation", "testdata", "heldout", "holdout"),
}
"""What folders of splits are called, in any case, without marks between words."""

MAX_NAMED = 5


class Found(NamedTuple):
    """One recording of a folder."""

    file: Path
    label: str
    part: Part


@dataclass
class Layout:
    """What a folder holds.

    Attributes:
        recordings: in the order of their names.
        notes: what is a split, and what was left out.
    """

    recordings: list[Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def lay_out(
    path: Path, suffixes: Sequence[str], *, splits: bool | None, named: dict[Part, str], ignore: Sequence[str]
) -> Layout:
    """Find the recordings of a folder with their classes and splits.

    Args:
        path: the folder.
        suffixes: of recordings, in lower case.
        splits: whether the folders at the top are splits; None to go by their names.
        named: folders of splits that have other names.
        ignore: folders at the top to leave out.

    Raises:
        UserError: there are no recordings, or splits and classes cannot be told apart.
    """
    top = [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    top = [child for child in top if _key(child.name) not in {_key(name) for name in ignore}]
    parts = _named_splits(path, top, named) if named else {} if splits is False else _splits(path, top, suffixes)
    if splits is not False and not parts:
        _refuse_wrapper(path, top, suffixes)
    if splits and not parts:
        raise UserError(
            f"data.source.splits=true: {path} has no folders called train and test (or validation); expected "
            "data.source.train_folder=NAME and data.source.test_folder=NAME"
        )
    layout = Layout()
    roots: list[tuple[Path, Part]] = [(folder, part) for part, folder in parts.items()] or [(path, "train")]
    if parts:
        beside = [child for child in top if child not in parts.values() and _recordings(child, suffixes)]
        if beside:
            names = ", ".join(child.name for child in beside[:MAX_NAMED])
            raise UserError(
                f"data.path={str(path)!r}: beside the folders {_listed(parts)} there are {names} with recordings; "
                f"expected data.source.ignore=[{names}] to leave them out, or data.source.splits=false where all of "
                "them are classes"
            )
        layout.notes.append(f"split by folders ({_listed(parts)})")
    if ignore:
        layout.notes.append(f"left out: folders {', '.join(ignore)}")
    counted = _Beside()
    counted.hidden += [child for child in sorted(path.iterdir()) if child.is_dir() and child.name.startswith(".")]
    for root, part in roots:
        classes = top if root is path else [child for child in sorted(root.iterdir()) if child.is_dir()]
        for child in sorted(root.iterdir()):
            if child.is_file() and (root is not path or not parts):
                counted.beside.append(child)
        for folder in classes:
            if folder.name.startswith("."):
                counted.hidden.append(folder)
                continue
            files = _recordings(folder, suffixes, counted)
            if not files:
                counted.empty.append(folder)
            label = unicodedata.normalize("NFC", folder.name)
            layout.recordings += [Found(file, label, part) for file in files]
    if parts:
        counted.beside += [child for child in sorted(path.iterdir()) if child.is_file()]
    if splits is None and not parts:
        _refuse_nested(path, top, suffixes)
    layout.notes += counted.notes(path, suffixes)
    return layout


@dataclass
class _Beside:
    """What is left out."""

    beside: list[Path] = field(default_factory=list)
    other: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)

    def notes(self, path: Path, suffixes: Sequence[str]) -> list[str]:
        """A phrase for each kind."""
        visible = [file for file in self.beside if not file.name.startswith(".")]
        hidden = self.hidden + [file for file in self.beside if file.name.startswith(".")]
        recordings = [file for file in visible if file.suffix.lower() in suffixes]
        others = self.other + [file for file in visible if file not in set(recordings)]
        return [
            f"left out: {len(paths)} {one if len(paths) == 1 else several} ({_few(path, paths)})"
            for one, several, paths in (
                ("recording beside the class folders", "recordings beside the class folders", recordings),
                ("file of another kind", "files of other kinds", others),
                ("hidden file or folder", "hidden files or folders", hidden),
                ("class folder without recordings", "class folders without recordings", self.empty),
            )
            if paths
        ]


def _few(path: Path, paths: Sequence[Path]) -> str:
    names = ", ".join(str(one.relative_to(path)) for one in paths[:MAX_NAMED])
    return names + (", ..." if len(paths) > MAX_NAMED else "")


def _listed(parts: dict[Part, Path]) -> str:
    return ", ".join(f"{folder.name}: {part}" for part, folder in parts.items())


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _part(name: str) -> Part | None:
    """The split that a folder is called after."""
    plain = _key(name).replace("_", "").replace("-", "").replace(" ", "").replace(".", "")
    plain = plain.strip("0123456789")
    for part, names in SPLIT_NAMES.items():
        if plain in names or any(plain == f"{name}{tail}" for name in names for tail in ("s", "set", "data", "split")):
            return part
    return None


def _named_splits(path: Path, top: Sequence[Path], named: dict[Part, str]) -> dict[Part, Path]:
    by_name = {_key(child.name): child for child in top}
    known = ", ".join(child.name for child in top[:20])
    problems = [
        f"data.source.{part}_folder={name!r}: expected a folder of {path}: {known}"
        for part, name in named.items()
        if _key(name) not in by_name
    ]
    if "train" not in named:
        problems.append("data.source.train_folder=None: expected a folder, where another split has one")
    if len({_key(name) for name in named.values()}) < len(named):
        problems.append(f"data.source: expected another folder for each split, found {sorted(named.values())}")
    if problems:
        raise UserError(problems)
    return {part: by_name[_key(named[part])] for part in SPLIT_NAMES if part in named}


def _splits(path: Path, top: Sequence[Path], suffixes: Sequence[str]) -> dict[Part, Path]:
    """The folders of splits by their names; none where no folder is called like one.

    Raises:
        UserError: some are, and it is not clear what they are.
    """
    called: dict[Part, list[Path]] = {}
    for child in top:
        if (part := _part(child.name)) is not None:
            called.setdefault(part, []).append(child)
    if not called:
        return {}
    names = ", ".join(child.name for children in called.values() for child in children)
    ways = (
        "data.source.train_folder=NAME with data.source.validation_folder=NAME or data.source.test_folder=NAME, or "
        "data.source.splits=false where they are classes"
    )
    if any(len(children) > 1 for children in called.values()):
        raise UserError(
            f"data.path={str(path)!r}: several of the folders {names} are called like one split; expected {ways}"
        )
    if "train" not in called or len(called) == 1:
        raise UserError(
            f"data.path={str(path)!r}: its folder {names} is called like a split, and there is no "
            f"{'train' if 'train' not in called else 'test or validation'} folder; expected {ways}"
        )
    return {part: called[part][0] for part in SPLIT_NAMES if part in called}


def _refuse_wrapper(path: Path, top: Sequence[Path], suffixes: Sequence[str]) -> None:
    """Refuse a folder that holds the folder of classes or splits alone, as unpacked archives do."""
    inner, inside = path, [child for child in top if _recordings(child, suffixes)]
    while len(inside) == 1 and not any(file.suffix.lower() in suffixes for file in inside[0].iterdir()):
        inner = inside[0]
        inside = [child for child in sorted(inner.iterdir()) if child.is_dir() and _recordings(child, suffixes)]
    if inner != path:
        names = ", ".join(child.name for child in inside[:MAX_NAMED])
        raise UserError(
            f"data.path={str(path)!r}: its recordings are all below {inner}, in {names}; expected "
            f"data.path={str(inner)!r}, or data.source.splits=false where folders here are classes"
        )


def _refuse_nested(path: Path, top: Sequence[Path], suffixes: Sequence[str]) -> None:
    """Refuse folders that all hold the same folders, as splits and folds do, and no recordings of their own."""
    inner = []
    for child in top:
        files = [file for file in child.iterdir() if file.is_file() and file.suffix.lower() in suffixes]
        inner.append(None if files else {_key(folder.name) for folder in child.iterdir() if folder.is_dir()})
    if len(inner) > 1 and inner[0] and len(inner[0]) > 1 and all(names == inner[0] for names in inner):
        shown = ", ".join(sorted(inner[0])[:MAX_NAMED])
        tops = ", ".join(child.name for child in top[:MAX_NAMED])
        if all(map(_part, inner[0])):
            raise UserError(
                f"data.path={str(path)!r}: each of its folders ({tops}) holds splits ({shown}); expected the folder of "
                f"one data set, such as data.path={str(top[0])!r}"
            )
        raise UserError(
            f"data.path={str(path)!r}: each of its folders ({tops}) holds the same folders ({shown}), which look like "
            "the classes; expected data.source.train_folder=NAME and data.source.test_folder=NAME for splits, or "
            f"data.source.splits=false where {tops} are the classes"
        )


def _recordings(folder: Path, suffixes: Sequence[str], counted: _Beside | None = None) -> list[Path]:
    """The recordings below a folder; what else there is goes to `counted`."""
    files = []
    for file in sorted(files_below(folder)):
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            if counted is not None:
                counted.hidden.append(file)
        elif file.suffix.lower() in suffixes:
            files.append(file)
        elif counted is not None:
            counted.other.append(file)
    return files
