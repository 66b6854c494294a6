"""The processes among which the series of a streamed fit are dealt out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Processes that fit together, or one alone.

    Each takes part in every call, in the same order.

    Attributes:
        rank: of this process, from 0.
        world_size: number of processes.
        total: adds up the tensors of all processes, and returns the sum in each; it may overwrite its argument.
        broadcast: returns in each process what the first has given; the others give None.
    """

    rank: int = 0
    world_size: int = 1
    total: Callable[[Tensor], Tensor] = lambda tensor: tensor
    broadcast: Callable[[Any], Any] = lambda given: given

    def from_first(self, compute: Callable[[], T]) -> T:
        """Compute something in the first process, and send it to the others."""
        given: T = self.broadcast(compute() if self.rank == 0 else None)
        return given

    def own(self, chunks: Sequence[range]) -> Sequence[range]:
        """Return the consecutive chunks that this process takes; the first takes the first, and none takes none."""
        first, end = (-(-len(chunks) * rank // self.world_size) for rank in (self.rank, self.rank + 1))
        return chunks[first:end]
