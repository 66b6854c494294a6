"""Finds the training series that are most like a new one, by the closed form's features.

Shape letters: n series, P features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from krontime.console import progress
from krontime.data.datamodule import SeriesDataset
from krontime.data.series import SeriesData
from krontime.models.kernel_ridge.classifier import ClosedForm
from krontime.runs.prepare import PreparedData

MAX_COMPARED = 2_000
"""Number of training series that are compared, evenly spaced where there are more."""


class Neighbour(NamedTuple):
    """A training series near a new one.

    Attributes:
        position: in the data set.
        file: that it was read from; None where one file holds several.
        label: class name.
        distance: root mean square difference of the standardised features, parts with equal weights.
        values: `(C, L)`, NaN where missing.
    """

    position: int
    file: str | None
    label: str
    distance: float
    values: np.ndarray


def nearest(
    closed_form: ClosedForm, job: PreparedData, data: SeriesData, places: Sequence[int], *, num_nearest: int
) -> list[list[Neighbour]]:
    """Find the training series nearest to each of some new series, the nearest first.

    Args:
        closed_form: fitted.
        job: what was trained on.
        data: the new series, prepared.
        places: positions of those that are asked about.
        num_nearest: how many for each.
    """
    fitted = np.sort(np.concatenate([job.split.train, job.split.validation]))
    known = fitted[np.linspace(0, len(fitted) - 1, min(len(fitted), MAX_COMPARED)).round().astype(np.int64)]
    asked = torch.cat([_embedding(closed_form, data, [place], data.has_missing) for place in places])
    distances = []
    with progress("comparing with training series", len(known)) as step:
        for index in known.tolist():
            distances.append(torch.cdist(asked, _embedding(closed_form, job.data, [index], job.masked)))
            step()
    distance = torch.cat(distances, dim=1)
    names = job.data.class_names
    return [
        [
            Neighbour(
                int(known[column]),
                job.data.name_of(int(known[column])),
                names[int(job.data.labels[known[column]])],
                float(row[column]),
                np.asarray(job.data.series(int(known[column]))),
            )
            for column in row.argsort(stable=True)[:num_nearest].tolist()
        ]
        for row in distance
    ]


def _embedding(closed_form: ClosedForm, data: SeriesData, indices: Sequence[int], masked: bool) -> torch.Tensor:
    """Return the features `(n, P)` of the series at `indices`; see `ClosedForm.embedding`."""
    batch = SeriesDataset(data, masked).__getitems__(indices)
    return closed_form.embedding(batch.x, batch.mask)
