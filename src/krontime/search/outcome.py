"""What a search leaves: its best config as an experiment, its trials as a table, and Optuna's plots."""

import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from krontime.search.study import PROBLEM
from krontime.storage import replacing

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

EXPERIMENT = Path("experiment", "best.yaml")
TABLE = "trials.csv"
HISTORY = "history.png"
IMPORTANCES = "importances.png"

NOT_OF_AN_EXPERIMENT = ("paths", "force", "logger")
"""What a command chooses anew, whatever the experiment."""


def write_experiment(
    path: Path, config: Mapping[str, Any], default: Mapping[str, Any], choices: Mapping[str, Any], words: str
) -> tuple[str, str]:
    """Write an experiment that composes to `config`.

    Args:
        path: of the YAML file, in a folder named `experiment`.
        config: of the trial, interpolations as they are.
        default: what the same choices of groups compose to alone.
        choices: choice of each config group that it takes.
        words: what it is the best of.

    Returns:
        What was written, and the command that trains with it: what was left out of the choices, with `~`, can't be
        said in an experiment.
    """
    kept = {key: value for key, value in config.items() if key not in NOT_OF_AN_EXPERIMENT}
    without = [f"~{key}" for key in _left_out(kept, default) if key.partition(".")[0] not in NOT_OF_AN_EXPERIMENT]
    given = ["--config-dir", str(path.parent.parent), f"experiment={path.stem}", *without]
    command = f"krontime train {shlex.join(given)}"
    lines = [
        "# @package _global_",
        f"# {command}: {words}.",
        "defaults:",
        *(f"  - override /{group}: {choice}" for group, choice in choices.items()),
    ]
    if changed := _difference(kept, default):
        lines += ["", OmegaConf.to_yaml(OmegaConf.create(changed)).rstrip()]
    text = "\n".join(lines) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text, command


def _difference(config: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that is not in the default one, or has another value there."""
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and isinstance(default.get(key), Mapping):
            if part := _difference(value, default[key]):
                changed[key] = part
        elif key not in default or default[key] != value:
            changed[key] = value
    return changed


def _left_out(config: Mapping[str, Any], default: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of the default config that a config does not have."""
    keys = []
    for key, value in default.items():
        if key not in config:
            keys.append(f"{prefix}{key}")
        elif isinstance(value, Mapping) and isinstance(config[key], Mapping):
            keys += _left_out(config[key], value, f"{prefix}{key}.")
    return keys


def write_table(trials: Sequence["FrozenTrial"], path: Path) -> None:
    """Write a CSV row for each trial that has ended: its value, how it ended, its time, and its options."""
    import pandas as pd

    rows = [
        {
            "trial": trial.number,
            "value": trial.value,
            "state": trial.state.name.lower(),
            "problem": trial.user_attrs.get(PROBLEM),
            "duration_s": round(trial.duration.total_seconds(), 1) if trial.duration else None,
            **trial.params,
        }
        for trial in trials
    ]
    with replacing(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")


def plot(study: "Study", folder: Path) -> None:
    """Write Optuna's plots of the values over trials and, where it can tell, of how much each option matters."""
    import matplotlib as mpl

    mpl.use("Agg")
    import optuna.visualization.matplotlib as plots
    from matplotlib import pyplot

    drawn: dict[str, Any] = {HISTORY: plots.plot_optimization_history, IMPORTANCES: plots.plot_param_importances}
    for name, draw in drawn.items():
        with warnings.catch_warnings(), mpl.rc_context():  # Optuna changes the style of all plots
            warnings.simplefilter("ignore")  # it calls its own experimental
            try:
                axes = draw(study)
            except (ValueError, RuntimeError):  # importances need two values that differ
                continue
            figure = axes.figure
            figure.set_size_inches(8, 4.5)
            with replacing(folder / name) as temporary:
                figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight")
            pyplot.close(figure)
