"""The part of the command `data` that makes the container of a public data set from the files of its origin."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from krontime.commands.options import output_problems
from krontime.config.names import nearest
from krontime.config.signatures import type_problem
from krontime.console import notice, show
from krontime.errors import Problems, UserError
from krontime.storage import expanded

KEYS: dict[str, Any] = {"prepare": None, "from": None, "output": None, "incomplete": False}
"""The keys of this part, and their defaults."""

TYPES: dict[str, Any] = {"prepare": str | None, "from": str | None, "output": str | None, "incomplete": bool}


def prepare(recipe: Mapping[str, Any], options: Mapping[str, Any]) -> Path:
    """Make a data set and write it where `data=NAME` reads it, or to `output`; returns the file.

    Args:
        recipe: the values of `KEYS`.
        options: the other options of the command.

    Raises:
        UserError: an option cannot work, or the files are not those of the data set.
    """
    from krontime.data.recipes import RECIPES

    _check(recipe, options, names=list(RECIPES))
    name, chosen = recipe["prepare"], RECIPES[recipe["prepare"]]
    output = expanded(recipe["output"] or str(Path(options["paths"]["data"]) / chosen.file))
    if problems := _output_problems(output):
        raise UserError(problems)
    made = chosen.make(expanded(recipe["from"]))
    for line in _differences(chosen.problems(made), recipe):
        notice(line)
    try:
        made.write(output)
    except OSError as error:
        raise UserError(f"output={str(output)!r}: cannot be written ({error.strerror or error})") from error
    counts = f"{int((~made.is_test).sum()):,} series to train on, {int(made.is_test.sum()):,} to test on"
    show(f"{output}: {counts}, {len(made.classes)} classes")
    place = f"paths.data={output.parent}" if recipe["output"] is None else f"data.path={output}"
    show(f"krontime train data={name} {place}")
    return output


def _check(recipe: Mapping[str, Any], options: Mapping[str, Any], *, names: list[str]) -> None:
    wrong = [type_problem(key, recipe[key], kind) for key, kind in TYPES.items()]
    problems = Problems()
    problems.lines = [problem for problem in wrong if problem]
    problems.raise_if_any()
    name, origin = recipe["prepare"], recipe["from"]
    if name not in names:
        hint = f" (did you mean {near}?)" if name and (near := nearest(name, names)) else ""
        problems.add("prepare", name, f"one of {', '.join(names)}{hint}")
    if origin is None:
        problems.add("from", origin, "the folder of the data set's files")
    elif not expanded(origin).is_dir():
        problems.add("from", origin, "a folder that exists")
    if options["plot"] is not None:
        problems.add("plot", options["plot"], "null where prepare is set")
    if options.get("data") is not None:
        problems.add("data", options["data"]["name"], "no choice of data where prepare is set")
    problems.raise_if_any()


def _differences(lines: list[str], recipe: Mapping[str, Any]) -> list[str]:
    """The lines to say where what there is may be written.

    Raises:
        UserError: it may not.
    """
    if not lines or recipe["incomplete"]:
        return [f"not the whole of {recipe['prepare']}: {line}" for line in lines]
    where = f"from={recipe['from']!r}"
    raise UserError([*(f"{where}: {line}" for line in lines), f"{where}: incomplete=true writes what there is"])


def _output_problems(output: Path) -> list[str]:
    problems = Problems()
    if output.suffix != ".npz":
        problems.add("output", str(output), "a file name that ends in .npz")
    if output.exists():
        problems.add("output", str(output), "a new file name; this one exists")
    return problems.lines or output_problems("output", output, is_folder=False)
