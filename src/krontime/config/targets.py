"""What a config may build (`_target_`), and the one place that builds it."""

import importlib
import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from krontime.config.resolve import leaves
from krontime.config.signatures import typed_as, unknown_arguments
from krontime.errors import UserError

ALLOWED_TARGETS = (
    "krontime.models.",
    "aeon.classification.",
    "krontime.data.sources.",
    "krontime.training.done.",
    "krontime.training.strategy.",
    "torch.optim.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "krontime.training.csv_log.",
    "lightning.pytorch.strategies.",
    "optuna.samplers.",
    "optuna.pruners.",
)
"""Modules whose classes a config may name as `_target_`; nothing else is ever built."""

AEON_CLASSIFIER = "krontime.models.aeon.AeonClassifier"
"""What a model that is no network has as `_target_`."""


def refusal(target: Any) -> str | None:
    """Why a `_target_` may not be built, or None where it may: it has to be a class, defined where it is allowed.

    The class is looked up attribute by attribute, and the module it says it comes from is held against the list too,
    so that a module which happens to import something dangerous is no way around.
    """
    if not isinstance(target, str) or not target.startswith(ALLOWED_TARGETS):
        return f"a class from {', '.join(prefix.rstrip('.') for prefix in ALLOWED_TARGETS)}"
    parts = target.split(".")
    try:
        named: Any = importlib.import_module(parts[0])
    except ModuleNotFoundError:
        return f"{parts[0]} to be installed (pip install {parts[0]})"
    for size, part in enumerate(parts[1:], start=2):  # in the order in which Hydra looks
        try:
            named = getattr(named, part)
        except AttributeError:
            try:
                named = importlib.import_module(".".join(parts[:size]))
            except ImportError:
                return f"the name of a class that exists ({part!r} was not found)"
    if not inspect.isclass(named) or not f"{named.__module__}.".startswith(ALLOWED_TARGETS):
        return "a class defined in an allowed module"
    return None


def target_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for each `_target_` below a plain config that may not be built, and for each interpolation left in it.

    Hydra would resolve the latter (escaped, or read from a checkpoint) while it builds, and so could make targets that
    were never looked at.
    """
    problems = []
    for key, value in leaves(config):
        if key.rpartition(".")[2] == "_target_":
            if expected := refusal(value):
                problems.append(f"{key}={value!r}: expected {expected}")
        elif isinstance(value, str) and "${" in value:
            problems.append(f"{key}={value!r}: expected a value without ${{, which starts an interpolation")
    return problems


def instantiate(config: Mapping[str, Any], key: str, /, **arguments: Any) -> Any:
    """Hydra's `instantiate` on a plain config, behind the list of what may be built.

    Args:
        config: of one object.
        key: where it stands in the whole config, as `model`.
        arguments: further ones.

    Raises:
        UserError: a `_target_` is missing or not allowed, or the object refuses its arguments. Where its `ValueError`
            names an argument, this names the key that was typed.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    if problems := target_problems(config):
        raise UserError(problems)
    if "_target_" not in config:
        raise UserError(f"_target_ is missing in {dict(config)!r}: expected the class to build")
    if problems := unknown_arguments(config, key):
        raise UserError(problems)
    try:
        return hydra.utils.instantiate(config, **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise UserError(_refused(str(cause), config, key)) from error
        if isinstance(cause, Exception) and _is_refusal_of_others(cause, config["_target_"]):
            raise UserError(f"{key} ({config['_target_']}): {cause}") from error
        raise


@contextmanager
def naming_keys(config: Mapping[str, Any], key: str) -> Iterator[None]:
    """Let what refuses its arguments name the keys that these were given by.

    Args:
        config: part of a plain config that the arguments come from.
        key: where it stands in the whole config, as `data`.

    Raises:
        UserError: instead of a `ValueError` of which each line begins with `ARGUMENT=`; any other error goes on.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        lines = [_typed(line, config, key, in_all=True) for line in str(error).splitlines()]
        named = [line for line in lines if line is not None]
        if not named or len(named) < len(lines):
            raise
        raise UserError(named) from error


def _is_refusal_of_others(cause: Exception, target: str) -> bool:
    """Whether an error is a library's way to refuse its arguments, or to say what it lacks.

    That is an error of a class of its own, a `TypeError` (which libraries raise for a value of the wrong kind), or one
    about a module or a file, raised where no code of ours was at work since Hydra called the library. Everything else
    is a fault of the program, ours or theirs, and keeps its traceback.
    """
    is_own = type(cause).__module__.partition(".")[0] not in ("builtins", "krontime")
    if target.startswith("krontime.") or not (is_own or isinstance(cause, TypeError | ImportError | OSError)):
        return False
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(cause.__traceback__)]
    return not any(name.partition(".")[0] == "krontime" for name in frames)


def _refused(message: str, config: Mapping[str, Any], key: str) -> list[str]:
    """The lines of an object's refusal, each with the key that was typed, or else with the object."""
    lines = []
    for line in message.splitlines() or [""]:
        if (typed := _typed(line, config, key)) is not None:
            lines.append(typed)
        elif re.match(r"[a-z_]\w*(\.\w+)+[=:]", line) or line.startswith(f"{key}="):
            lines.append(line)  # names a key already
        else:
            lines.append(f"{key} ({config['_target_']}): {line}")
    return lines


def _typed(line: str, config: Mapping[str, Any], key: str, *, in_all: bool = False) -> str | None:
    """A line in which `ARGUMENT=VALUE: ...` becomes `KEY=VALUE: ...`; None where it begins with no argument.

    With `in_all`, arguments that are named further on become keys too.
    """
    match = re.match(r"[a-z]\w*=", line)
    if match is None or not list(_keys(config, key, match[0][:-1])):
        return None

    def named(match: re.Match[str]) -> str:
        keys = dict(_keys(config, key, match["argument"]))
        holding = [one for one, value in keys.items() if line[match.end() :].startswith(repr(value))]
        return f"{typed_as([*holding, *keys][0])}=" if keys else match[0]

    return re.sub(r"(?<![\w.])(?P<argument>[a-z]\w*)=", named, line, count=0 if in_all else 1)


def _keys(node: Mapping[str, Any], key: str, argument: str) -> Iterator[tuple[str, Any]]:
    """The keys of an argument, with their values, in the config of an object and of the objects that it is given."""
    if argument in node or typed_as(f"{key}.{argument}") != f"{key}.{argument}":
        yield f"{key}.{argument}", node.get(argument)
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{key}.{name}", argument)


def is_aeon(config: Mapping[str, Any]) -> bool:
    """Whether the model of a plain config is a reference classifier, and not a network."""
    return (config.get("model") or {}).get("_target_") == AEON_CLASSIFIER


def has_network(config: Mapping[str, Any]) -> bool:
    """Whether the model of a plain config is a network; not a reference classifier, nor a closed form alone."""
    return "_target_" in (config.get("model") or {}) and not is_aeon(config)


def require_network(config: Mapping[str, Any]) -> None:
    """Refuse a plain config whose model is no network.

    Raises:
        UserError: it is none.
    """
    if not has_network(config):
        raise UserError(f"model={config['model']['name']}: expected a network; this is a classifier without one")
