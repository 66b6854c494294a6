"""Work in pieces whose intermediate results stay in a processor's cache, and are never whole in memory."""

import math
from collections.abc import Iterator

import torch

PIECE_TOKENS = 256
"""Tokens that a CPU works on at once. A GPU, which wants large products, gets all."""
MAX_PIECES = 8
"""Pieces are larger rather than more than these, so that what starts each of them stays small beside it."""


def pieces(num_items: int, *, tokens_each: int = 1, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover all items, of `PIECE_TOKENS` tokens or of one item at least; one on a GPU."""
    size = max(PIECE_TOKENS // tokens_each, math.ceil(num_items / MAX_PIECES), 1)
    if device.type != "cpu":
        size = max(num_items, 1)
    return (slice(start, start + size) for start in range(0, num_items, size))
