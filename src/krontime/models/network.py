"""The interface that every network keeps.

Shape letters: B batch, C channels, L time points, K classes.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class SeriesNetwork(nn.Module, ABC):
    """A network that classifies series.

    Its constructor takes `num_channels`, `length` (of the longest series) and `num_classes` beside its own options, all
    by keyword, and raises `ValueError` for options that cannot work, by the names of the arguments.
    """

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            x: `(B, C, L)`, 0 where not observed; L may be less than the `length` the network was built for.
            mask: `(B, C, L)` bool, true where observed; None when all is.

        Returns:
            Logits `(B, K)`; those of a series do not depend on the others in its batch.
        """

    def fit_tokens(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Set what is fitted to training series and not learned, before the first step; nothing by default.

        Args:
            x: `(B, C, L)` scaled training series.
            mask: `(B, C, L)` bool, true where observed; None when all is.
        """
        return
