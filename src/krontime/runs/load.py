"""Reads what a finished run left: its checkpoints, and the module that validation selected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from krontime.config import resolve, targets
from krontime.config.schema import data_problems
from krontime.data.decoding import Decoding
from krontime.data.series import SeriesSpec
from krontime.errors import UserError
from krontime.runs.predictions import Predictions, read_predictions
from krontime.runs.record import Record
from krontime.storage import HELD_OUT, PREDICTIONS, RECORD
from krontime.training.build import build_module
from krontime.training.checkpoint import checksum_problem
from krontime.training.checkpoint_file import read_checkpoint
from krontime.training.module import FORMAT_VERSION, SeriesClassifier, tensors_of

MAX_COUNT = 1_000
"""Maximum number of layers, levels, heads or dilations of a model that is read from a checkpoint."""

CHECKPOINTS = "checkpoints"

BEST = "best.ckpt"

LAST = "last.ckpt"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, plain containers and tensors only.

    Raises:
        UserError: the file is missing, damaged, holds anything else, or is of another format version.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    try:
        if problem := checksum_problem(path):
            raise ValueError(problem)
        checkpoint = read_checkpoint(path)
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path}: not a readable checkpoint ({error}); expected one of krontime's, of plain values and tensors"
        ) from error
    about = checkpoint.get("krontime") if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict):
        raise UserError(f"{path}: not a checkpoint of krontime")
    if about.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version={about.get('format_version')!r}: this version of krontime reads {FORMAT_VERSION}; "
            "expected a run of this version (the same training command with force=true makes it), or the version that "
            "wrote the file"
        )
    return checkpoint


def best_checkpoint(run_dir: Path) -> Path:
    """Return the path of the checkpoint that validation selected; of the last one where nothing selects."""
    best = run_dir / CHECKPOINTS / BEST
    return best if best.is_file() else run_dir / CHECKPOINTS / LAST


def _check_config(config: Mapping[str, Any]) -> None:
    """Refuse a config that no training would have accepted, or whose network would take for ever to build.

    Weights can only be compared once there are layers to hold them, so that they give no protection here.

    Raises:
        UserError: with all that is refused.
    """
    if problems := data_problems(config["data"]):
        raise UserError(problems)
    for key, value in resolve.leaves(config["model"], "model"):
        if key.rpartition(".")[2].startswith("num_") and isinstance(value, int) and value > MAX_COUNT:
            raise UserError(f"{key}={value}: expected at most {MAX_COUNT:,} in a checkpoint")


def module_from(config: Mapping[str, Any], spec: SeriesSpec, tensors: dict[str, torch.Tensor]) -> SeriesClassifier:
    """Build the module of a config that was read from a file, with the weights beside it, ready to classify.

    Raises:
        UserError: the config asks for what no training would have accepted.
        RuntimeError: the weights are not those of such a module.
    """
    _check_config(config)
    with_network = not config.get("closed_form") or any(name.startswith("network.") for name in tensors)

    def built() -> SeriesClassifier:
        class_weights = torch.ones(spec.num_classes) if "class_weights" in tensors else None
        return build_module(config, spec, with_network=with_network, class_weights=class_weights)

    with torch.device("meta"):  # sizes are compared before there is memory for them
        built().load_tensors(tensors, assign=True)
    module = built()
    module.load_tensors(tensors)
    return module.eval()


class LoadedRun(NamedTuple):
    """What a finished run left.

    Attributes:
        module: the selected one.
        config: resolved, in plain types.
        spec: sizes of its data.
        masked: whether its batches carried a mask.
        held_out: what is said of training and validation series by fits without them, which decisions are calibrated
            on; None where the run is from before they were kept.
    """

    module: SeriesClassifier
    config: dict[str, Any]
    spec: SeriesSpec
    masked: bool
    held_out: Predictions | None = None

    @property
    def decoding(self) -> Decoding:
        """What the raw numbers of series stand for."""
        return Decoding.of(self.config["data"]["source"])

    @property
    def source_rate_hz(self) -> float | None:
        """Points per second that its source was told, before any resampling; None where it was told nothing."""
        return self.config["data"]["source"].get("sampling_rate_hz")


def load_run(run_dir: Path) -> LoadedRun:
    """Load the selected module of a run, and what it was trained on.

    Raises:
        UserError: the folder is no run's, or its checkpoint cannot be read.
    """
    path = best_checkpoint(run_dir)
    if not path.is_file():
        _refuse_reference(run_dir)
        reason = f"there is no {path.relative_to(run_dir)}" if run_dir.is_dir() else "there is no such folder"
        raise UserError(f"run={str(run_dir)!r}: expected the folder of a finished run ({reason})")
    checkpoint = load_checkpoint(path)
    about = checkpoint["krontime"]
    try:
        spec = SeriesSpec.from_plain(about["spec"])
        module = module_from(about["config"], spec, tensors_of(checkpoint))
        run = LoadedRun(module=module, config=about["config"], spec=spec, masked=about["masked"])
        run = run._replace(held_out=read_held_out(run_dir, spec))
    except UserError as error:
        raise UserError(f"{path}: {problem}" for problem in error.problems) from error
    except Exception as error:  # whatever values lead to that no training wrote
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{path}: its parts do not fit together ({reason})") from error
    return run


def read_held_out(folder: Path, spec: SeriesSpec) -> Predictions | None:
    """Read the held-out predictions of a run or bundle; None where it has none. See `LoadedRun.held_out`.

    Raises:
        UserError: the file is damaged, or of other classes.
    """
    path = folder / HELD_OUT
    if not path.is_file():
        return None
    predictions = read_predictions(path)
    if predictions.class_names != spec.class_names or None in predictions.labels:
        raise UserError(f"{path}: not the predictions of this run (other classes, or unknown ones)")
    return predictions


def _refuse_reference(run_dir: Path) -> None:
    """Say what a run of a reference classifier left instead of weights.

    Raises:
        UserError: the folder is one of a reference classifier.
    """
    if (run_dir / RECORD).is_file() and targets.is_aeon(Record.read(run_dir / RECORD).config):
        raise UserError(
            f"run={str(run_dir)!r}: expected the run of a network; a reference classifier is not kept, since aeon's "
            f"can only be stored as pickle (its scores are in {RECORD}, its test predictions in {PREDICTIONS})"
        )
