"""Checks whether the formats of an exported model answer as the trained module does.

Shape letters: B batch, C channels, L time points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from krontime.console import progress
from krontime.data.series import SeriesData
from krontime.errors import UserError
from krontime.metrics import decide
from krontime.runs.exported import formats
from krontime.runs.exported.predict import padded
from krontime.runs.load import LoadedRun
from krontime.runs.prepare import prepare

TOLERANCE = 1e-4
"""Largest difference in probability that is accepted."""

_BATCH_SIZE = 4


@dataclass(frozen=True)
class Sample:
    """Series that formats are compared on.

    Attributes:
        series: each `(C, L_i)` float32, NaN where not observed.
        source: what they are, for the model card.
    """

    series: list[np.ndarray]
    source: str

    def batches(self) -> list[np.ndarray]:
        """Return the series in batches `(B, C, L)`, NaN after each one's end."""
        chunks = [self.series[start : start + _BATCH_SIZE] for start in range(0, len(self.series), _BATCH_SIZE)]
        return [
            np.concatenate([padded(values[None], max(it.shape[1] for it in chunk)) for values in chunk])
            for chunk in chunks
        ]


@dataclass(frozen=True)
class Parity:
    """The largest differences between a format and the trained module.

    Attributes:
        name: of the format.
        difference: the largest in any probability.
        num_other_classes: series that are given another class.
    """

    name: str
    difference: float
    num_other_classes: int

    @property
    def holds(self) -> bool:
        """Whether the difference is accepted."""
        return self.difference <= TOLERANCE


def sample(run: LoadedRun, config: Mapping[str, Any], num_series: int | None) -> Sample:
    """Take series of a run's test split, else of its validation split; generate some where its data can't be read.

    Args:
        run: what was trained.
        config: its config, with the paths of this machine.
        num_series: evenly spread over the split; None for all.
    """
    try:
        prepared = prepare(config)
    except (UserError, OSError) as error:
        reason = error.problems[0] if isinstance(error, UserError) else str(error)
        generated = _generated(run, num_series or 32)
        return Sample(generated, f"{len(generated)} generated series, since the run's data can't be read ({reason})")
    split = prepared.split
    name, chosen = ("test", split.test) if len(split.test) else ("validation", split.validation)
    if num_series is not None and num_series < len(chosen):
        chosen = chosen[np.linspace(0, len(chosen) - 1, num_series).astype(np.int64)]
    series = [_values(prepared.data, index) for index in chosen]
    return Sample(series, f"{len(series)} {name} series of {config['data']['name']}")


def _values(data: SeriesData, index: int) -> np.ndarray:
    return np.array(data.series(index), np.float32)


def _generated(run: LoadedRun, num_series: int) -> list[np.ndarray]:
    """Generate random walks with noise, of the lengths of training, some with a gap."""
    rng = np.random.default_rng(0)
    spec = run.spec
    shortest = spec.min_length or spec.length
    series = []
    for number in range(num_series):
        length = int(rng.integers(shortest, spec.length + 1))
        steps = rng.standard_normal((2, spec.num_channels, length))
        values = (steps[0].cumsum(axis=1) / np.sqrt(length) + 0.3 * steps[1]).astype(np.float32)
        if number % 4 == 3:
            values[:, length // 3 : length // 2] = np.nan
        series.append(values)
    return series


def compared(run: LoadedRun, names: list[str], folder: Path, series: Sample) -> list[Parity]:
    """Compare each of some formats, whose files lie in a folder, with the trained module."""
    batches = series.batches()
    expected = [formats.of_run(run)(batch) for batch in batches]
    prior = run.module.prior.cpu().numpy()
    results = []
    for name in names:
        predict = formats.loaded(name, folder)
        difference, num_other = 0.0, 0
        with progress(f"checking {name}", len(batches)) as step:
            for batch, wanted in zip(batches, expected, strict=True):
                given = predict(batch)
                difference = float(np.maximum(difference, np.abs(given - wanted).max()))  # NaN stays
                num_other += int((decide(given, prior) != decide(wanted, prior)).sum())
                step()
        results.append(Parity(name, difference, num_other))
    return results


def problems(results: list[Parity], series: Sample) -> list[str]:
    """List the formats whose difference is not accepted, a message each."""
    return [
        f"format={result.name}: its probabilities differ by {result.difference:.1e} from those of the trained model, "
        f"on {series.source}: expected at most {TOLERANCE:g}"
        for result in results
        if not result.holds
    ]
