"""The command `audit`: a page on what a data set's own split says before a model does."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from krontime.commands.options import folder_of, output_problems
from krontime.config import resolve
from krontime.config.schema import audit_problems
from krontime.config.targets import naming_keys
from krontime.console import show
from krontime.errors import UserError
from krontime.storage import replacing


def audit(config: DictConfig) -> Path:
    """Measure a data set and write the page.

    Raises:
        UserError: an option cannot work, the data cannot be read or has no test series, or the page cannot be written.
    """
    options = resolve.plain(config)
    if options.get("data") is None:
        raise UserError("data=...: expected a data set, such as data=ucr; krontime data lists them")
    output = folder_of(options["output"])
    if problems := audit_problems(options) + _output_problems(output):
        raise UserError(problems)
    import torch

    from krontime.reports.audit import measure, page
    from krontime.runs.prepare import load_data

    chosen: dict[str, Any] = options["data"]
    data = load_data(options)
    if not data.is_test.any():
        raise UserError(f"data.name={chosen['name']!r}: expected test series; there is no split to audit")
    with naming_keys(chosen, "data"):
        measured = measure.audit(
            data,
            name=chosen["name"],
            scaling=chosen["scaling"],
            num_resamples=options["num_resamples"],
            num_shuffles=options["num_shuffles"],
            seed=options["seed"],
            num_jobs=torch.get_num_threads(),
        )
    text = page.write_page(measured)
    try:
        with replacing(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"output={str(output)!r}: cannot be written ({error.strerror or error})") from error
    show(text)
    show(f"Written to {output}")
    return output


def _output_problems(output: Path) -> list[str]:
    if lines := output_problems("output", output, is_folder=False, ending=".md"):
        return lines
    if output.exists():
        from krontime.reports.audit import page

        if not output.read_bytes().startswith(page.TITLE.encode()):
            return [f"output={str(output)!r}: expected a new name, or a page of an audit; this file is another one"]
    return []
