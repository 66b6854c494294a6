"""Whether options have the shape of their defaults: keys below a section, and true or false for a switch."""

from collections.abc import Mapping
from typing import Any

import yaml

from krontime.config.files import bases, config_dir
from krontime.errors import Problems

WITH_SCHEMA = ("train", "plan", "data", "audit")
"""Commands whose options have a schema, which says the same together with all else that is wrong."""

_MAX_NAMED = 4


def shape_problems(command: str, config: Mapping[str, Any]) -> list[str]:
    """A line for each option of a command's own config that is one value for a section, or no truth value for a switch.

    Args:
        command: name of the command.
        config: composed, in plain types.
    """
    problems = Problems()
    if command in WITH_SCHEMA:
        return problems.lines
    own = config_dir() / f"{command}.yaml"
    for path in (*(base for base in bases(own) if base.stem not in WITH_SCHEMA), own):
        for key, default in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            if key == "defaults" or key not in config:
                continue
            if isinstance(default, Mapping) and not isinstance(config[key], Mapping):
                names = [f"{key}.{name}" for name in default]
                others = " and others" if len(names) > _MAX_NAMED else ""
                problems.add(key, config[key], f"values for its keys {' and '.join(names[:_MAX_NAMED])}{others}")
            elif isinstance(default, bool) and not isinstance(config[key], bool):
                problems.add(key, config[key], "true or false")
    return problems.lines
