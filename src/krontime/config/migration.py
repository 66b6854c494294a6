"""Configs that an earlier version of krontime resolved, in the names of this one."""

from collections.abc import Mapping
from typing import Any

_TARGETS = {"krontime.reference.Reference": "krontime.models.aeon.AeonClassifier"}
"""Class paths that have moved."""

_KEYS = {"optim.warmup": "warmup_fraction", "optim.final": "min_lr_ratio"}
"""Dotted keys of earlier versions, and the last part of their name now."""


def migrated_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the present names of keys and classes, in the order that it had; every value stays."""
    return {_KEYS.get(key, key): _migrated(value, key) for key, value in config.items()}


def _migrated(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        return {_KEYS.get(f"{place}.{key}", key): _migrated(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_migrated(item, place) for item in value]
    if place.endswith("._target_") and isinstance(value, str):
        return _TARGETS.get(value, value)
    return value
