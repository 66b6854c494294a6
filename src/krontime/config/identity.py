"""What names a run: the hash of the part of its config that distinguishes one job from another."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

_NOT_IDENTITY = frozenset({"paths", "hydra", "force", "logger", "checkpoint_every_n_steps"})

_DEVICE_KEYS = frozenset({"accelerator", "devices", "num_nodes", "strategy"})

_OF_CUT_WINDOWS = frozenset({"label", "min_overlap", "unlabelled"})

_NO_PATHS = frozenset({"name", "monitor"})
"""Keys whose strings are names, whatever they look like."""


def plain_json(value: Any) -> Any:
    """`value` in JSON's own types: tuples as lists, keys as strings, infinities and NaN as strings."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def config_hash(config: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of `job_identity(config)` as canonical JSON.

    The order of keys does not matter.
    """
    text = json.dumps(job_identity(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def job_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that distinguishes one job from another.

    Left out are the top-level keys `paths`, `hydra`, `force`, `logger` and `checkpoint_every_n_steps`, and
    `accelerator`, `devices`, `num_nodes` and `strategy` of `trainer`; and, since earlier configs do not name them,
    `data.resample` where it is 0, the official split, and `label`, `min_overlap` and `unlabelled` of `data.window`
    where `label` is null. A path that starts with one of the folders of
    `paths` counts as relative to it, so that a data set that lies elsewhere is still the same job.

    Args:
        config: resolved config in plain types (dicts, lists, strings, numbers, booleans, None).
    """
    identity = {key: value for key, value in without_folders(config).items() if key not in _NOT_IDENTITY}
    if isinstance(trainer := identity.get("trainer"), dict):
        identity["trainer"] = {key: value for key, value in trainer.items() if key not in _DEVICE_KEYS}
    if isinstance(data := identity.get("data"), dict):
        data = {key: value for key, value in data.items() if key != "resample" or value != 0}
        if isinstance(window := data.get("window"), dict) and window.get("label") is None:
            data["window"] = {key: value for key, value in window.items() if key not in _OF_CUT_WINDOWS}
        identity["data"] = data
    return identity


def without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in which `<NAME>` stands for each folder of `paths`, there and wherever a path starts with it.

    A string is a path where more follows after the folder and a slash, or where it is a folder that has a slash in it
    itself: one plain word may mean anything. What keys call a name is none.
    """
    plain = plain_json(config)
    paths = plain["paths"] if isinstance(plain.get("paths"), dict) else {}
    folders = [(path.rstrip("/"), name) for name, path in paths.items() if isinstance(path, str) and path]
    folders.sort(key=lambda item: (-len(item[0]), item[1]))  # the innermost folder wins

    def relative(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {inner: relative(item, inner) for inner, item in value.items()}
        if isinstance(value, list):
            return [relative(item, key) for item in value]
        if isinstance(value, str) and key not in _NO_PATHS:
            for folder, name in folders:
                if value.startswith(folder + "/") or (value == folder and "/" in folder):
                    return f"<{name}>{value[len(folder) :]}"
        return value

    stands_for = {name: f"<{name}>" for _, name in folders}
    return {
        key: {**item, **stands_for} if key == "paths" and item is paths else relative(item, key)
        for key, item in plain.items()
    }
