"""Rows (series of one channel) as the compiled loops and the reference implementation take them.

Shape letters: B batch, C channels, L time points, R rows, which are B * C.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Rows(NamedTuple):
    """Series of one channel each.

    Attributes:
        x: `(R, L)` float32, 0 where nothing is observed.
        observed: `(R, L)` bool, or None where every point is.
        channel: `(R,)` int64, the channel that a row comes from.
    """

    x: Tensor
    observed: Tensor | None
    channel: Tensor

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None) -> "Rows":
        """Make rows of series `(B, C, L)` and their mask, the channels of a series one after the other."""
        channel = torch.arange(x.shape[1], device=x.device).repeat(x.shape[0])
        return cls(x.flatten(0, 1).float(), None if mask is None else mask.flatten(0, 1), channel)

    @property
    def seen(self) -> Tensor:
        """What `observed` says, as a tensor in any case: `(R, L)` bool."""
        return torch.ones_like(self.x, dtype=torch.bool) if self.observed is None else self.observed

    @property
    def ends(self) -> Tensor:
        """Number of points of each row up to its last observed one: `(R,)` int64."""
        length = self.x.shape[1]
        if self.observed is None:
            return torch.full((len(self.x),), length, device=self.x.device)
        return torch.where(self.observed, torch.arange(1, length + 1, device=self.x.device), 0).amax(dim=1)

    def select(self, which: Tensor) -> "Rows":
        """Return the rows of these numbers: `(n,)` int64."""
        observed = None if self.observed is None else self.observed[which]
        return Rows(self.x[which], observed, self.channel[which])

    def difference(self) -> "Rows":
        """Return the rows' first difference, observed where both points are; nothing is, where rows have one point."""
        x, observed = self.x, self.observed
        if x.shape[1] == 1:
            return Rows(torch.zeros_like(x), torch.zeros_like(x, dtype=torch.bool), self.channel)
        step = x[:, 1:] - x[:, :-1]
        if observed is None:
            return Rows(step, None, self.channel)
        both = observed[:, 1:] & observed[:, :-1]
        return Rows(step * both, both, self.channel)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return what the compiled loops take, in NumPy.

        Returns:
            `x`, `ends`, the mask `(R, L)` (of no columns where every point up to the end is observed), and `channel`.
        """
        ends = self.ends
        has_gaps = self.observed is not None and bool((self.observed.sum(dim=1) != ends).any())
        mask = (
            self.observed.contiguous().numpy()
            if has_gaps and self.observed is not None
            else np.zeros((len(ends), 0), bool)
        )
        return self.x.contiguous().numpy(), ends.numpy(), mask, self.channel.numpy()


def in_threads(function: Callable[[slice], None], num_rows: int) -> None:
    """Call a function that releases the GIL with slices of the rows, on as many threads as torch uses."""
    num_threads = min(torch.get_num_threads(), num_rows)
    if num_threads <= 1:
        function(slice(0, num_rows))
        return
    borders = [num_rows * i // num_threads for i in range(num_threads + 1)]
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(function, [slice(a, b) for a, b in itertools.pairwise(borders)]))
