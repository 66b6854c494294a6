"""Work in chunks whose intermediate results stay in a processor's cache, and are never whole in memory."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_TOKENS = 256
"""Tokens that a CPU works on at once. A GPU, which wants large products, gets all."""
MAX_CHUNKS = 8
"""Chunks are larger rather than more than these, so that what starts each of them stays small beside it."""


def chunks(num_items: int, *, tokens_each: int = 1, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover all items, at least one.

    On a CPU they have `CHUNK_TOKENS` tokens, or more where there were more than `MAX_CHUNKS`; a GPU gets all in one.
    """
    size = max(CHUNK_TOKENS // tokens_each, math.ceil(num_items / MAX_CHUNKS), 1)
    if device.type != "cpu":
        size = max(num_items, 1)
    return (slice(start, start + size) for start in range(0, max(num_items, 1), size))


def write_chunk(part: Tensor, where: slice, whole: Tensor | None, *, like: Tensor) -> Tensor:
    """`whole`, which is to be of the shape of `like`, with one chunk of it; the chunk itself where it is all there is.

    `whole` is None before the first chunk.
    """
    if len(part) == len(like):
        return part.to(like.dtype)
    if whole is None:
        whole = torch.empty_like(like)
    whole[where] = part
    return whole
