"""The closed form: several parts, each calibrated, whose probabilities are averaged.

Shape letters: B batch, C channels, L time points, n series, K classes.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from krontime.models.kernel_ridge.features import Features
from krontime.models.kernel_ridge.mixture import average, select_parts
from krontime.models.kernel_ridge.part import LabelledSeries, Part, is_streamed
from krontime.models.kernel_ridge.ridge import StreamedRidge, can_be_left_out

log = logging.getLogger(__name__)

_MAX_PARTS = 16
"""Number of parts at most: constants that they compute with are in no checkpoint, and one from elsewhere names them."""


class ClosedForm(nn.Module):
    """A classifier without gradients: fixed features, a ridge regression on each family of them, and their mean.

    Each part standardises its features, fits a ridge regression whose strength minimises the squared error of
    leave-one-out predictions, and takes its temperature from these too; so its probabilities are calibrated. Their mean
    with equal weights is the answer, without parts that these predictions say it is better without.

    Args:
        num_channels: C.
        length: of the longest training series.
        num_classes: K.
        parts: for each part, what makes its features from `num_channels`, `length`, `seed` and, where there are series
            for no more than a streamed fit keeps, `num_features`. They are taken in the order of their names, so that
            the same config gives the same sums, in whatever order its keys are stored. One that has no features of
            series as short as these is left out.
        fit_on: `train_and_validation`, or `train` for the series that a network is trained on.
        min_network_series: validation series below which no network is trained beside it.
        num_series: that it is fitted to; None for few. Where a fit to them is streamed, families have no more features
            than it keeps.
        seed: of all that is drawn.
    """

    kept: Tensor

    def __init__(
        self,
        *,
        num_channels: int,
        length: int,
        num_classes: int,
        parts: Mapping[str, Callable[..., Features]],
        fit_on: Literal["train", "train_and_validation"] = "train_and_validation",
        min_network_series: int = 100,
        num_series: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if fit_on not in ("train", "train_and_validation"):
            raise ValueError(f"fit_on={fit_on!r}: expected train or train_and_validation")
        if min_network_series < 0:
            raise ValueError(f"min_network_series={min_network_series}: expected at least 0")
        if not 0 < len(parts) <= _MAX_PARTS:
            raise ValueError(f"parts={sorted(parts)}: expected 1 to {_MAX_PARTS}")
        self.fit_on = fit_on
        self.min_network_series = min_network_series
        self.num_classes = num_classes
        self.parts = nn.ModuleDict()
        for i, (name, make) in enumerate(sorted(parts.items())):
            options = {"num_channels": num_channels, "length": length, "seed": seed + i}
            features = make(**options)
            if is_streamed(num_series or 0) and features.num_features > StreamedRidge.MAX_COLUMNS:
                features = make(**options, num_features=StreamedRidge.MAX_COLUMNS)
            if features.num_features:
                self.parts[name] = Part(features, num_classes)
        if not self.parts:
            raise ValueError(f"parts={sorted(parts)}: none has features of series of {length} points")
        self.register_buffer("kept", torch.ones(len(self.parts), dtype=torch.bool))

    @property
    def num_fitted(self) -> int:
        """Count the numbers that are fitted: weights, biases and temperatures of all parts."""
        return sum(part.weight.numel() + part.bias.numel() + 1 for part in self._parts().values())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logarithms of class probabilities `(B, K)`, float32.

        Args:
            x: raw series `(B, C, L)`, 0 where not observed.
            mask: `(B, C, L)` bool, true where observed; None where all is.
        """
        return average([part(x, mask) for part in self.kept_parts()])

    def kept_parts(self) -> list[Part]:
        """List the parts whose probabilities are averaged."""
        return [part for part, is_kept in zip(self._parts().values(), self.kept.tolist(), strict=True) if is_kept]

    @torch.no_grad()
    def embedding(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the standardised features `(B, P)` of the kept parts, of raw series `(B, C, L)`.

        They are scaled so that the distance of two series is the root mean square difference of their features, with
        the same weight for each part.
        """
        kept = self.kept_parts()
        rows = [part.standardized(x, mask) for part in kept]
        return torch.cat([row / (row.shape[1] * len(kept)) ** 0.5 for row in rows], dim=1)

    def fit(self, sample: tuple[Tensor, Tensor | None], series: LabelledSeries) -> Tensor:
        """Fit one part after the other, so that memory holds the features of one part at a time.

        Args:
            sample: training series `(B, C, L)` and their mask, from which constants of the features are drawn.
            series: the series to fit to; its `fit_validation` says whether those for validation count too, and its
                `ranks` which processes fit together, where the fit is streamed: all of them end with the same.

        Returns:
            `(n, K)`: logarithms of the probabilities of each series from a fit without it.
        """
        left_out = []
        for i, (name, part) in enumerate(self._parts().items(), start=1):
            if series.ranks.rank == 0:
                log.info("Fitting the closed form: part %d/%d, %s", i, len(self.parts), name)
            part.features.fit(*sample)
            left_out.append(part.fit(series))
        # A series that no fit left out has zeros for all parts alike.
        judged = can_be_left_out(series.labels, series.groups) & (left_out[0] != 0).any(dim=1)
        groups = None if series.groups is None else series.groups.code[judged]
        kept = select_parts([log_probability[judged] for log_probability in left_out], series.labels[judged], groups)
        self.kept.fill_(False)
        self.kept[kept] = True
        names = list(self.parts)
        if series.ranks.rank == 0:
            log.info("The closed form answers with %s", ", ".join(names[i] for i in kept))
        return average([left_out[i] for i in kept])

    def warm_up(self) -> None:
        """Compile the loops for this processor by one call on a short series; the first time takes seconds."""
        for part in self._parts().values():
            part.features(torch.zeros(1, len(part.features.centre), 9))  # as long as a kernel

    def _parts(self) -> dict[str, Part]:
        return {name: part for name, part in self.parts.items() if isinstance(part, Part)}
