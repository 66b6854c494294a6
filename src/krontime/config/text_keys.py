"""Which keys hold text, so that a path or a name that looks like a number, a list or a sweep stays what was typed."""

import re
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel

from krontime.config.files import config_dir, options

OF_COMMANDS = (
    *("run", "input", "output", "plot", "folder", "cells", "refresh", "readme", "published", "json", "reference"),
    *("threshold.class", "window.length", "window.stride"),
    *("model.classifier", "data.path", "data.train", "data.test"),
)
"""Text at the top of commands, and what a choice of data passes on to its source."""

OF_LOGGERS = (
    *("name", "project", "group", "entity", "id", "notes", "job_type", "version", "prefix", "checkpoint_name"),
    *("save_dir", "dir", "sub_dir"),
)
OF_CALLBACKS = ("dirpath", "filename", "monitor", "mode")
OF_NEW_FILES = ("label", "group", "separator", "decimal")

LISTS = ("records", "outputs", "ignore", "keep")
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


@cache
def _of_schema() -> frozenset[str]:
    """Dotted keys that the schema of a config has as text."""
    from krontime.config.sections import Inspect, Plan, Train

    sections: list[type[BaseModel]] = [Train, Inspect, Plan]
    return frozenset(key for section in sections for key in _text_fields(section))


def _text_fields(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        members = _members(field.annotation)
        if members and members <= {str, type(None)} and str in members:
            yield f"{prefix}{name}"
        for member in members:
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from _text_fields(member, f"{prefix}{name}.")


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
                members = _members(hint)
                if str in members and members <= {str, int, type(None)}:
                    keys.add(key)
    return frozenset(keys)


def _members(annotation: Any) -> set[Any]:
    """The types of a union; the type itself where it is none."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return set().union(*(_members(member) for member in typing.get_args(annotation)))
    return {annotation} if isinstance(annotation, type) else {object}
