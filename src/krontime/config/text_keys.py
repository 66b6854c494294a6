"""Which keys hold text, so that a path or a name that looks like a number, a list or a sweep stays what was typed."""

import re
import typing
from functools import cache
from typing import Any

from krontime.config.files import config_dir, options

_FILES = ("run", "input", "output", "segments", "plot", "folder", "cells", "table", "check", "from", "refresh")

OF_COMMANDS = (
    *_FILES,
    *("published", "json", "reference", "against", "scatter", "superseded", "target", "threshold.class"),
    *("window.length", "window.stride", "model.classifier", "data.path", "data.train", "data.test"),
)
"""Text at the top of commands, and what a choice of data passes on to its source."""

PATHS = (*_FILES, "paths.output", "paths.cache", "paths.data")
"""Paths that no command takes without any text."""

OF_LOGGERS = (
    *("name", "project", "group", "entity", "id", "notes", "job_type", "version", "prefix", "checkpoint_name"),
    *("save_dir", "dir", "sub_dir"),
)
OF_CALLBACKS = ("dirpath", "filename", "monitor", "mode")
OF_NEW_FILES = ("label", "group", "separator", "decimal")

NEVER_NULL = ("run", "input", "data.path", "data.train", "records", "outputs")
"""What is read and has to be there, so that `null` is a name like any other; elsewhere it stands for none."""

LISTS = ("records", "outputs", "readme", "ignore", "keep")
"""Last parts of keys that hold lists of text, or one text."""


def is_text(key: str) -> bool:
    """Whether a key that a user typed holds text."""
    key = key.lstrip("+")
    parts = key.split(".")
    if key in OF_COMMANDS or key in _of_schema():
        return True
    if parts[0] == "logger" and len(parts) == 3:
        return parts[-1] in OF_LOGGERS
    if parts[0] == "callbacks" and len(parts) == 3:
        return parts[-1] in OF_CALLBACKS
    if parts[0] == "source" and len(parts) == 2:
        return parts[-1] in OF_NEW_FILES
    return parts[:2] == ["data", "source"] and len(parts) == 3 and parts[-1] in _of_sources()


def is_list_of_text(key: str) -> bool:
    """Whether a key holds a list of names or paths."""
    return key.lstrip("+").rpartition(".")[2] in LISTS


def is_never_null(key: str) -> bool:
    """Whether `null` is a name there."""
    return key.lstrip("+") in NEVER_NULL


@cache
def _of_schema() -> frozenset[str]:
    """Dotted keys that the schema of a config has as text."""
    from krontime.config.sections import Inspect, Plan, Train, leaf_fields

    return frozenset(
        key
        for section in (Train, Inspect, Plan)
        for key, field in leaf_fields(section)
        if _is_text(field.annotation, str)
    )


def _is_text(annotation: Any, *kinds: type) -> bool:
    """Whether a type takes text, and beside `None` nothing but the kinds."""
    from krontime.config.sections import members

    kept = members(annotation)
    return str in kept and kept <= {*kinds, type(None)}


@cache
def _of_sources() -> frozenset[str]:
    """Arguments that a source of data takes as text, or as text or a number."""
    from hydra.utils import get_class

    keys = set()
    for name in options("data"):
        text = (config_dir() / "data" / f"{name}.yaml").read_text(encoding="utf-8")
        for target in re.findall(r"_target_: (krontime\.data\.sources\.[\w.]+)", text):
            hints = typing.get_type_hints(get_class(target).__init__)  # type: ignore[misc]
            for key, hint in hints.items():
                if _is_text(hint, str, int):
                    keys.add(key)
    return frozenset(keys)
