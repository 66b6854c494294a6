"""A data set that is given by its path alone: `krontime train data.path=sounds`."""

import re
from collections.abc import Sequence

from krontime.config import files as config_files
from krontime.config.overrides import SWEEP, is_multirun
from krontime.console import notice
from krontime.errors import UserError
from krontime.storage import expanded, is_address, secret_problem

KEYS = ("data.path", "data.train")


def with_data(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments with a choice of `data`, where one is needed and a path says which.

    What was chosen is said on standard error.

    Raises:
        UserError: the path is not there, or nothing reads it.
    """
    given = {key: value for key, equals, value in (argument.partition("=") for argument in arguments) if equals}
    keys = [key for key in KEYS if key in given]
    chosen = {"data", "+data", "experiment", "+experiment"} & given.keys()
    if len(keys) != 1 or chosen or not _takes_data(command):
        return list(arguments)
    value = given[keys[0]]
    if is_multirun(arguments) and re.match(SWEEP, value):
        return list(arguments)
    if not value:
        raise UserError(f"{keys[0]}='': expected a file or a folder")
    if value[:1] in "'\"" and value[-1:] == value[:1]:
        value = value[1:-1]
    paths = value.split(",") if is_multirun(arguments) else [value]
    if keys[0] == "data.train" and (folders := [path for path in paths if expanded(path).is_dir()]):
        raise UserError(f"data.train={folders[0]!r}: is a folder; expected a file, or data.path={folders[0]}")
    options = _of_all(paths, keys[0])
    if "data.test" in given:
        options.pop("data.test", None)
    notice(" ".join(f"{key}={text}" for key, text in options.items()) + f" (from {keys[0]}={value})")
    rest = [argument for argument in arguments if argument.partition("=")[0] != keys[0]]
    return [*rest, *(f"{key}={text}" for key, text in options.items())]


def _of_all(paths: Sequence[str], key: str) -> dict[str, str]:
    """The choice of `data` and its keys, with a value for each path of a sweep.

    Raises:
        UserError: one is not there, or nothing reads it, or one choice with one key does not do for all.
    """
    from krontime.data.guess import guess, guess_of_address

    if problems := [problem for path in paths if (problem := secret_problem(key, path))]:
        raise UserError(problems)
    options, *others = [
        guess_of_address(path, key) if is_address(path) else guess(expanded(path), key) for path in paths
    ]
    if others and any(
        len(each) > 2 or each.keys() != options.keys() or each["data"] != options["data"] for each in others
    ):
        raise UserError(f"{key}={','.join(paths)}: expected data=KIND beside it, and files of that kind alone")
    return {
        name: text if name == "data" else ",".join([text, *(each[name] for each in others)])
        for name, text in options.items()
    }


def _takes_data(command: str) -> bool:
    root = config_files.config_dir()
    file = root / f"{command}.yaml"
    return file.is_file() and "data" in config_files.default_groups(file)
