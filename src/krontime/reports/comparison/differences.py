"""Nested configs and protocols: their values by dotted keys, and where several do not agree."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NONE = object()
"""Stands for a key that is not there."""


def option(config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """The value of a dotted key of a config."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def without_seeds(value: Any) -> Any:
    """`value` without the keys that only say which repetition a run is."""
    if isinstance(value, Mapping):
        return {
            key: without_seeds(item)
            for key, item in value.items()
            if key not in ("seed", "fold", "resample") and not key.endswith("_seed")
        }
    return [without_seeds(item) for item in value] if isinstance(value, list) else value


def differing(values: Sequence[Mapping[str, Any]]) -> str:
    """The dotted keys at which mappings do not all agree, with their values in the mappings' order."""
    flat = [dict(_flatten(value)) for value in values]
    keys = sorted(set().union(*flat))
    parts = []
    for key in keys:
        shown = [_short(item[key]) if key in item else "none" for item in flat]
        if any(item.get(key, NONE) != flat[0].get(key, NONE) for item in flat):
            parts.append(f"{key}: {' / '.join(shown)}")
    return ", ".join(parts)


def shortly(values: Sequence[Mapping[str, Any]]) -> str:
    """What `differing` says where that is short, else how many keys there are, and the first few."""
    whole = differing(values)
    if len(whole) <= _LONGEST:
        return whole
    flat = [dict(_flatten(value)) for value in values]
    keys = [key for key in sorted(set().union(*flat)) if len({str(item.get(key, NONE)) for item in flat}) > 1]
    return f"{len(keys)} keys, such as {', '.join(keys[:_SHOWN])}"


_LONGEST = 120
"""Characters of differences that are shown whole; of longer ones `_SHOWN` keys are."""

_SHOWN = 3


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:8]}..." if re.fullmatch("[0-9a-f]{64}", text) else text


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
