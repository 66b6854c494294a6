"""Brings records of earlier schemas to the present one.

| schema | what changed |
|---|---|
| 1 | the first |
| 2 | `inference_ms_per_series` |
| 3 | the number of steps; names of config keys and classes (`krontime.config.migration`), with the config's hash |
"""

from typing import Any, Literal

from krontime.config.identity import config_hash
from krontime.config.migration import migrated_config

SCHEMA_VERSION: Literal[3] = 3
READABLE = (1, 2, SCHEMA_VERSION)

_SINCE = {
    "inference_ms_per_series": 2,
    **dict.fromkeys(
        ("num_steps", "max_steps", "limited_by", "train_cpu_s", "warm_up_s", "part_times_s", "memory_of"), 3
    ),
}
"""First schema that has each field."""


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """Bring a record of any schema of `READABLE` to the present one.

    The hash of an earlier config becomes that of the same config under its present names, so that jobs which were
    the same, or were not, still are.

    Raises:
        ValueError: the record contradicts its own schema: its hash is not that of its config, or it has a field that
            came later. Wrong fields are left for the check of the present schema.
    """
    version = content["schema_version"]
    if version == SCHEMA_VERSION:
        return content
    problems = []
    for name, since in _SINCE.items():
        if version < since and name in content:
            problems.append(f"schema_version {version} has no {name}")
    changed: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    if isinstance(config := content.get("config"), dict):
        if content.get("config_hash") != (expected := config_hash(config)):
            problems.append(f"config_hash is {content.get('config_hash')!r} but the config's hash is {expected!r}")
        changed["config"] = migrated_config(config)
        changed["config_hash"] = config_hash(changed["config"])
    if problems:
        raise ValueError("; ".join(problems))
    return content | changed
