"""Chunks are dealt out whole, each to one process."""

import pytest

from krontime.models.kernel_ridge.ranks import Ranks


@pytest.mark.parametrize("num_chunks", [1, 4, 7])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_every_chunk_is_of_one_process(num_chunks, world_size):
    chunks = [range(10 * i, 10 * i + 10) for i in range(num_chunks)]
    own = [Ranks(rank, world_size).own(chunks) for rank in range(world_size)]
    assert [chunk for mine in own for chunk in mine] == chunks
    assert own[0][0] is chunks[0]
    assert max(map(len, own)) - min(map(len, own)) <= 1
