"""What the commands on a finished run share: checks of their options."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from krontime.config.cross_checks import accelerator_problem
from krontime.config.signatures import type_problem
from krontime.errors import Problems, UserError
from krontime.storage import expanded, writing_problem


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse values of the wrong type or range, and a device that is not there."""
    problems = [
        type_problem(key, options[key], annotation)
        for key, annotation in (("accelerator", str | None), ("force", bool), ("sampling_rate_hz", float | None))
        if key in options
    ]
    problems.append(accelerator_problem("accelerator", options.get("accelerator")))
    rate = options.get("sampling_rate_hz")
    if isinstance(rate, int | float) and not rate > 0:
        problems.append(f"sampling_rate_hz={rate}: expected a rate above 0, or null")
    if given := [problem for problem in problems if problem]:
        raise UserError(given)


def output_problems(
    key: str,
    path: Path,
    *,
    is_folder: bool,
    force: bool = True,
    ending: str | None = None,
    given: Path | None = None,
) -> list[str]:
    """A line where what is computed could not be written in the end.

    Args:
        key: names the path.
        path: of the output.
        is_folder: whether it is a folder, which may be there already.
        force: whether a file that is there is overwritten.
        ending: of the name of the file, without which nothing that is there is overwritten; None for any.
        given: a file that is read, which is overwritten in no case.
    """
    problems = Problems()
    try:
        if ending is not None and path.suffix != ending:
            problems.add(key, str(path), f"a file name that ends in {ending}")
        elif is_folder and path.is_file():
            problems.add(key, str(path), "a folder; this is a file")
        elif not is_folder and path.is_dir():
            problems.add(key, str(path), "a file; this is a folder")
        elif given is not None and is_among(path, [given]):
            problems.add(key, str(path), "another file than input")
        elif not is_folder and not force and path.exists():
            problems.add(key, str(path), "a new name, or force=true to overwrite; the file exists")
        elif problem := writing_problem(path):
            problems.add(key, str(path), f"a place that can be written to ({problem})")
    except OSError as error:
        problems.add(key, str(path), f"a path that can be looked at ({error.strerror})")
    return problems.lines


def is_among(path: Path, files: Iterable[Path]) -> bool:
    """Say whether a path is one of some files, by whatever name."""
    return path.exists() and any(file.exists() and path.samefile(file) for file in files)


def folder_of(value: Any) -> Path:
    return expanded(str(value))
