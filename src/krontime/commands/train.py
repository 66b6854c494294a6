"""The command `train`: one config, one run folder, one record."""

from pathlib import Path

from omegaconf import DictConfig

from krontime.config import resolve
from krontime.config.schema import check_train
from krontime.console import result
from krontime.runs.lock import Busy
from krontime.runs.run import train_in


def train(config: DictConfig) -> float | None:
    """Train, select on validation, score the test split once, and leave a record.

    Returns:
        The validation score that selected the checkpoint; None on any rank but the first.

    Raises:
        UserError: something the user gave cannot work; no record is written.
        Busy: another process is training in the run's folder.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    try:
        options = resolve.plain(config)
        check_train(options, is_multirun=hydra.mode == RunMode.MULTIRUN)
        record = train_in(options, run_dir)
    except Busy:
        raise  # the folder is another process's
    except BaseException:
        _remove_empty(run_dir, Path(str(config.paths.output)))
        raise
    if record and hydra.mode == RunMode.RUN:
        result(run=run_dir, **record.model_dump(mode="json", exclude={"config"}))
    metric = record.protocol.selection_metric if record and record.protocol else None
    return record.metrics.val.get(metric.removeprefix("val/")) if record and metric else None  # type: ignore[call-overload]


def _remove_empty(run_dir: Path, output: Path) -> None:
    """Remove the folders that Hydra makes before anything is checked, where nothing came into them."""
    for folder in (run_dir, *run_dir.parents):
        if not folder.resolve().is_relative_to(output.resolve()):
            return
        try:
            folder.rmdir()
        except OSError:  # something is in it, or another process of a sweep was faster
            return
