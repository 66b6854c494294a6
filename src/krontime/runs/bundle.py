"""A bundle: a finished run in a folder of plain files, to hand on or to publish.

`model.safetensors` holds the selected weights with the statistics of the normaliser, `bundle.json` what the model is
built from (config, sizes, class names), `record.json` the run's record without the folders of its machine,
`held_out_predictions.parquet` what decisions are calibrated on, `README.md` the model card, and `SHA256SUMS` the
checksum of each, as `sha256sum -c` reads them. Nothing in it is a pickle. Other formats of the model may lie beside
these (see `krontime.runs.exported`); a bundle is read without them.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from krontime import __version__
from krontime.data.series import SeriesSpec
from krontime.errors import UserError
from krontime.runs.load import LoadedRun, load_run, module_from, read_held_out
from krontime.runs.predictions import write_predictions
from krontime.runs.record import Record
from krontime.storage import HELD_OUT, RECORD

FORMAT_VERSION = 4
"""Version of `bundle.json` and of the files beside it."""

WEIGHTS = "model.safetensors"
ABOUT = "bundle.json"
CARD = "README.md"
SUMS = "SHA256SUMS"
CONTENT = (WEIGHTS, ABOUT, RECORD, CARD)


def is_bundle(folder: Path) -> bool:
    """Whether a folder is meant to be a bundle; whether it is whole is seen on reading."""
    return (folder / ABOUT).exists() or (folder / SUMS).exists()


def load(folder: Path) -> LoadedRun:
    """Load the selected module of a run folder or of a bundle.

    Raises:
        UserError: the folder is neither, or is damaged.
    """
    return read_bundle(folder) if is_bundle(folder) else load_run(folder)


def write_bundle(
    run: LoadedRun, record: Record, card: str, folder: Path, *, more: Callable[[Path], str] | None = None
) -> None:
    """Write a bundle, whole or not at all.

    Args:
        run: the run that the bundle is made of.
        record: the run's, without the folders of its machine.
        card: the model card.
        folder: must not exist.
        more: writes further files into the folder that it is given, and returns what the card says of them.
    """
    from safetensors.torch import save_file

    about = {
        "format_version": FORMAT_VERSION,
        "krontime": __version__,
        "config": record.config,
        "spec": run.spec.to_plain(),
        "masked": run.masked,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{uuid4().hex}")
    building.mkdir()
    try:
        # Copies, since tensors that share memory would be refused.
        save_file({name: t.detach().cpu().clone() for name, t in run.module.tensors().items()}, building / WEIGHTS)
        (building / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        shutil.copymode(building / ABOUT, building / WEIGHTS)  # safetensors leaves it to its owner, whatever the umask
        if run.held_out is not None:
            write_predictions(run.held_out, building / HELD_OUT)
        record.write(building / RECORD)
        (building / CARD).write_text(card + ("" if more is None else more(building)), encoding="utf-8")
        bundle_files = files_of(building)
        names = (*bundle_files, *sorted({path.name for path in building.iterdir()} - set(bundle_files)))
        sums = "".join(f"{_sha256(building / name)}  {name}\n" for name in names)
        (building / SUMS).write_text(sums, encoding="utf-8")
        for name in (*names, SUMS):
            with (building / name).open("rb+") as file:
                os.fsync(file.fileno())
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def read_bundle(folder: Path) -> LoadedRun:
    """Load the module of a bundle, after its checksums have been compared.

    Raises:
        UserError: a file is missing or is not the one that was written, or the bundle is of another format version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_sums(folder)
    about = _about(folder / ABOUT)
    try:
        spec = SeriesSpec.from_plain(about["spec"])
        module = module_from(about["config"], spec, load_file(folder / WEIGHTS))
        masked = bool(about["masked"])
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{folder}: the parts of this bundle do not fit together ({reason})") from error
    held_out = read_held_out(folder, spec)
    return LoadedRun(module=module, config=about["config"], spec=spec, masked=masked, held_out=held_out)


def files_of(folder: Path) -> tuple[str, ...]:
    """List the files of the bundle itself; held-out predictions are missing where the run is older than they are."""
    return (*CONTENT, *([HELD_OUT] if (folder / HELD_OUT).exists() else []))


def check_sums(folder: Path, needed: Sequence[str] | None = None) -> None:
    """Compare files with the checksums noted for them; files that are not asked for are not read.

    Args:
        folder: of a bundle.
        needed: names of the files; None for those of the bundle itself.

    Raises:
        UserError: with all that is missing or differs.
    """
    problems = []
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / SUMS}: a bundle has its checksums here, and they can't be read ({error})"
        ) from error
    noted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if needed is None:
        needed = tuple(dict.fromkeys((*files_of(folder), *([HELD_OUT] if HELD_OUT in noted else []))))
    for name in needed:
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: is missing from this bundle")
        elif name not in noted:
            problems.append(f"{folder / SUMS}: has no checksum of {name}")
        elif _sha256(path) != noted[name]:
            problems.append(f"{path}: is not the file that was exported (its checksum differs)")
    if problems:
        raise UserError(problems)


def _about(path: Path) -> dict[str, Any]:
    """Read `bundle.json`.

    Raises:
        UserError: it is no JSON, or of another format version.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not readable ({error})") from error
    if not isinstance(about, dict) or about.get("format_version") != FORMAT_VERSION:
        version = about.get("format_version") if isinstance(about, dict) else None
        raise UserError(f"{path}: format_version={version!r}: this version of krontime reads {FORMAT_VERSION}")
    return about


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
