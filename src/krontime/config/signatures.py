"""Whether a class takes the arguments that a config gives it: names and types, from its signature.

Found before anything is read or built, so that a user sees all of them at once and by the keys that can be typed.
"""

import difflib
import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

TYPED_AS = {
    "model.depth": "decomposition.depth",
    "model.level_sizes": "decomposition.sizes",
    "model.sizes": "decomposition.sizes",
    "model.tokenizer": "tokenizer",
    "model.estimator._target_": "model.classifier",
    "data.source.path": "data.path",
    "data.source.train": "data.train",
    "data.source.test": "data.test",
}
"""Arguments that a config fills from another key, which is the one to name in a message."""

WHOLE = ("data.", "callbacks.", "logger.", "trainer.")
"""Where objects are built at once; below a model, and as optimiser, one may lack arguments until it is called."""

NOT_ARGUMENTS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def typed_as(key: str) -> str:
    """The key that a user types for that of an argument."""
    for filled, typed in TYPED_AS.items():
        if key == filled or key.startswith(f"{filled}."):
            return typed + key.removeprefix(filled)
    return key


def argument_problems(config: Mapping[str, Any]) -> list[str]:
    """A line for each argument of an object of a plain config, or of the trainer, that its class does not take.

    Args:
        config: resolved, in plain types; every `_target_` in it names an allowed class.
    """
    problems = []
    for key, node in _objects(config):
        skipped = (*NOT_ARGUMENTS, *(("name",) if key == "model" else ()))
        if node.get("_partial_") and (key == "model" or key.startswith(WHOLE)):
            problems.append(f"{key}._partial_={node['_partial_']!r}: expected no such key, since this is built at once")
        given = {name: value for name, value in node.items() if name not in skipped}
        problems += _problems(_target(node["_target_"]), TYPED_AS.get(key, key), given)
    if isinstance(trainer := config.get("trainer"), Mapping):
        from lightning.pytorch import Trainer

        problems += _problems(Trainer, "trainer", trainer)
    return list(dict.fromkeys(problems))  # the tokenizer stands in two places


def unknown_arguments(config: Mapping[str, Any], key: str) -> list[str]:
    """A line for each argument of an object that its class does not have; the object's config stands at `key`."""
    problems = []
    for place, node in _objects(config, key):
        given = {name: value for name, value in node.items() if name not in NOT_ARGUMENTS}
        problems += _unknown(_target(node["_target_"]), typed_as(place), given)
    return problems


def type_problem(key: str, value: Any, annotation: Any) -> str | None:
    """A line where `value` is not of the annotated type, without conversions; None where it is, or nobody can say."""
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
        return None
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        if isinstance(value, list) and type_problem(key, tuple(value), annotation) is None:
            return None  # YAML has no tuples
        expected = [worded(problem["msg"]) for problem in error.errors(include_url=False)]
        plain = [text for text in expected if not text.startswith(("an instance of", "callable"))] or expected
        return f"{key}={value!r}: expected {', or '.join(dict.fromkeys(plain))}"
    return None


def worded(message: str) -> str:
    """What pydantic expects, in the words of the other messages."""
    for theirs, ours in (
        ("Input should be ", ""),
        ("greater than or equal to ", "at least "),
        ("less than or equal to ", "at most "),
        ("a valid integer", "a whole number"),
        ("a valid number", "a number"),
        ("a valid boolean", "true or false"),
        ("a valid string", "text"),
        ("a valid list", "a list"),
        ("an instance of Sequence", "a list"),
        ("a valid dictionary", "keys and values"),
    ):
        message = message.replace(theirs, ours)
    return message


def _objects(node: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dict below a node that holds a `_target_`, with its dotted key."""
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield key, node
    for name, value in node.items():
        yield from _objects(value, f"{key}.{name}" if key else str(name))


def _target(path: str) -> type:
    from hydra.utils import get_class

    return get_class(path)


def _unknown(target: type, key: str, given: Mapping[str, Any]) -> list[str]:
    """A line for each argument that a class does not have."""
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    problems = []
    for name, value in given.items():
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            hint = f" (did you mean {key}.{near[0]}?)" if near else ""
            problems.append(f"{typed_as(f'{key}.{name}')}={value!r}: {target.__name__} has no argument {name}{hint}")
    return problems


def _problems(target: type, key: str, given: Mapping[str, Any]) -> list[str]:
    parameters = inspect.signature(target).parameters
    try:
        hints = typing.get_type_hints(target.__init__)  # type: ignore[misc]
    except (NameError, TypeError):  # one of them is known to type checkers alone
        hints = {
            name: parameter.annotation
            for name, parameter in parameters.items()
            if parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str)
        }
    problems = _unknown(target, key, given)
    for name, value in given.items():
        dotted = TYPED_AS.get(f"{key}.{name}", f"{key}.{name}")
        if (
            name in parameters
            and name in hints
            and not isinstance(value, Mapping)
            and (problem := type_problem(dotted, value, hints[name]))
        ):
            problems.append(problem)
    return problems
