"""All problems of a config in one error, before anything is built or read."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from krontime.config.cross_checks import cross_problems, data_key_problems, unknown_problems
from krontime.config.sections import Audit, DataOnly, Inspect, Plan, Section, Train
from krontime.config.signatures import argument_problems, worded
from krontime.config.targets import target_problems
from krontime.errors import UserError


def check_train(config: Mapping[str, Any], *, is_multirun: bool) -> None:
    """Check a plain `train` config.

    Args:
        config: resolved, in plain types.
        is_multirun: whether the job is one of a sweep, whatever launcher runs it.

    Raises:
        UserError: with every problem found.
    """
    problems = _schema_problems(Train, config)
    problems += target_problems(config)
    if not problems:
        ours = cross_problems(config, is_multirun=is_multirun)
        told = {problem.partition("=")[0] for problem in ours}
        problems += [problem for problem in argument_problems(config) if problem.partition("=")[0] not in told]
        problems += ours
    if problems:
        raise UserError(problems)


def data_problems(data: Any) -> list[str]:
    """A line for everything that is wrong with the `data` of a config that was not typed here, as in a checkpoint."""
    return _schema_problems(DataOnly, {"data": data})


def inspect_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for everything that is wrong with a plain config of the command `data`, where a data set is chosen."""
    problems = _schema_problems(Inspect, config) + target_problems(config)
    return problems or data_key_problems(config) + argument_problems(config)


def audit_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for everything that is wrong with a plain config of the command `audit`."""
    problems = _schema_problems(Audit, config) + target_problems(config)
    if not problems and config["data"]["resample"]:
        problems = [f"data.resample={config['data']['resample']}: expected 0; the official split is what is audited"]
    return problems or data_key_problems(config) + argument_problems(config)


def plan_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for everything that is wrong with a plain config of the command `plan`."""
    problems = _schema_problems(Plan, config) + target_problems(config) + unknown_problems(Plan, config)
    if problems:
        return problems
    return (data_key_problems(config) if config.get("data") else []) + argument_problems(config)


def _schema_problems(schema: type[BaseModel], config: Mapping[str, Any]) -> list[str]:
    try:
        schema.model_validate(dict(config))
    except ValidationError as error:
        return _merged(error.errors(include_url=False))
    return []


def _keys_of(error: Any, key: str) -> str:
    """The keys of a section where one value was given for all of it."""
    section = next(it for it in Section.__subclasses__() if it.__name__ == error["ctx"]["class_name"])
    return " and ".join(f"{key}.{name}" for name in section.model_fields)


def _merged(errors: Sequence[Any]) -> list[str]:
    """One line a key: a value that fits none of several types gives one error for each."""
    lines: dict[str, str] = {}
    for error in errors:
        path = [str(part) for part in error["loc"]]
        while path and (path[-1] in ("int", "constrained-int", "list[int]") or path[-1].startswith("literal[")):
            path.pop()
        key = ".".join(path)
        expected = worded(error["msg"].removeprefix("Value error, "))
        if error["type"] == "value_error":
            lines[key] = f"{key}: {expected}"
        elif error["type"] == "string_pattern_mismatch":
            lines[key] = f"{key}={error['input']!r}: expected a name for a folder, without / or \\ and no dot first"
        elif error["type"] == "missing":
            lines[key] = f"{key}: is missing; expected a value"
        elif error["type"] == "model_type":
            lines[key] = f"{key}={error['input']!r}: expected values for its keys {_keys_of(error, key)}"
        elif error["type"] == "extra_forbidden":
            lines[key] = f"{key}={error['input']!r}: there is no such key"
        elif key in lines:
            lines[key] += f", or {expected}"
        else:
            lines[key] = f"{key}={error['input']!r}: expected {expected}"
    return list(lines.values())
