"""The command `probe`: what each level of a trained KronTime still knows of the patterns of the synthetic series.

The synthetic label takes a short-range and a long-range pattern together. A linear classifier that is given the
features of one level alone shows whether that level has kept either of them.

Shape letters: n series, C channels, D model width, h depth.
"""

from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from krontime.config import resolve, targets
from krontime.console import show
from krontime.data.series import SeriesData
from krontime.data.sources.synthetic import SyntheticSource
from krontime.data.windows import is_cut
from krontime.errors import Problems, UserError
from krontime.models.krontime import KronTime
from krontime.reports.probes import CSV, PLOT, Probe, write_probes
from krontime.runs import load, prepare
from krontime.storage import expanded
from krontime.training.predict import Scorer


def probe(config: DictConfig) -> list[Probe]:
    """Probe each level of a run, and write a table and a plot into its folder.

    Raises:
        UserError: the run is none of KronTime on the synthetic data set.
    """
    options = resolve.plain(config)
    run_dir = expanded(str(options["run"]))
    problems = Problems()
    for key, minimum in (("num_folds", 2), ("seed", 0)):
        if not isinstance(options[key], int) or options[key] < minimum:
            problems.add(key, options[key], f"a whole number of at least {minimum}")
    problems.raise_if_any()
    run = load.load_run(run_dir)
    network = run.module.network
    source = targets.instantiate(run.config["data"]["source"], "data.source")
    if not isinstance(network, KronTime) or not network.head_by_level or not isinstance(source, SyntheticSource):
        raise UserError(
            f"run={str(run_dir)!r}: expected a run of model=krontime model.head=levels closed_form=none data=synthetic"
        )
    if is_cut(run.config["data"]["window"]):
        raise UserError(f"run={str(run_dir)!r}: expected a run on whole series, without data.window.label")
    job = prepare.prepare({**run.config, "paths": {**run.config["paths"], **options["paths"]}})
    indices = np.flatnonzero(~job.data.is_test)
    patterns = dict(zip(("short", "long"), source.patterns(), strict=True))
    fewest = min(int(np.bincount(labels[indices]).min()) for labels in patterns.values())
    if options["num_folds"] > fewest:
        raise UserError(
            f"num_folds={options['num_folds']}: expected at most {fewest}, the training series of the rarest pattern"
        )
    run.module.mixture = None  # the features are the network's, however little of it is mixed in
    features = level_features_of(
        run.module, Scorer.of(run.config, options["accelerator"]), job.data, indices, masked=job.masked_for(indices)
    )
    group_sizes = np.cumprod([1, *network.plan.sizes]).tolist()
    probes = [
        Probe(
            level,
            group_sizes[level],
            pattern,
            *cross_validated(of_level, labels[indices], num_folds=options["num_folds"], seed=options["seed"]),
            chance=1 / source.num_classes,
        )
        for pattern, labels in patterns.items()
        for level, of_level in enumerate(features)
    ]
    write_probes(probes, run_dir)
    show(
        "\n".join(
            f"level {each.level} (groups of {each.group_size:,} tokens), {each.pattern} range: "
            f"{each.accuracy:.3f} ± {each.deviation:.3f} (chance {each.chance:.3f})"
            for each in probes
        )
        + f"\nFolder  {run_dir}\n        {CSV}, {PLOT}"
    )
    return probes


def level_features_of(
    module: Any, scorer: Scorer, data: SeriesData, indices: np.ndarray, *, masked: bool | None = None
) -> list[np.ndarray]:
    """The features of each level, lowest first: h + 1 arrays `(n, C * D)` of the series at `indices`."""
    network = module.network
    seen: list[torch.Tensor] = []
    hook = network.norm_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
    try:
        scorer.probabilities(module, data, indices, masked=masked)
    finally:
        hook.remove()
    by_level = torch.cat(seen).unflatten(-1, (network.plan.depth + 1, -1))  # (n * C, h + 1, D)
    by_level = by_level.unflatten(0, (len(indices), -1))
    return [by_level[:, :, level].flatten(1).numpy() for level in range(network.plan.depth + 1)]


def cross_validated(features: np.ndarray, labels: np.ndarray, *, num_folds: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation over folds of the accuracy of logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    scores = cross_val_score(classifier, features, labels, cv=folds)
    return float(scores.mean()), float(scores.std(ddof=1))
