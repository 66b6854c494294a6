"""The patch geometry against a reference that walks point by point."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from krontime.models.layers.patches import num_patches, pad_to_patches, patch_mask, unfold_patches

GEOMETRIES = st.integers(1, 9).flatmap(lambda patch: st.tuples(st.just(patch), st.integers(1, patch)))


def slow_num_patches(length: int, patch_length: int, stride: int) -> int:
    """The least number of patches under which no point is left over, at least one."""
    count = 1
    while (count - 1) * stride + patch_length < length:
        count += 1
    return count


def slow_patch_mask(observed: list[bool], patch_length: int, stride: int) -> list[bool]:
    """Patches that hold an observed point, among those that it takes to reach the last observed point."""
    end = max((i + 1 for i, seen in enumerate(observed) if seen), default=0)
    needed = slow_num_patches(end, patch_length, stride)
    counts = []
    for patch in range(slow_num_patches(len(observed), patch_length, stride)):
        points = range(patch * stride, min(patch * stride + patch_length, len(observed)))
        counts.append(patch < needed and any(observed[point] for point in points))
    return counts


@given(length=st.integers(1, 60), geometry=GEOMETRIES)
def test_the_last_point_is_covered_and_no_patch_is_superfluous(length, geometry):
    assert num_patches(length, *geometry) == slow_num_patches(length, *geometry)


@given(length=st.integers(1, 40), geometry=GEOMETRIES)
def test_patches_hold_their_points_and_zeros_after_the_end(length, geometry):
    patch_length, stride = geometry
    x = torch.arange(1.0, 2 * length + 1).view(1, 2, length)
    patches = unfold_patches(x, patch_length, stride)
    assert patches.shape == (1, 2, num_patches(length, patch_length, stride), patch_length)
    for channel in range(2):
        for patch in range(patches.shape[2]):
            for place in range(patch_length):
                point = patch * stride + place
                expected = x[0, channel, point] if point < length else 0
                assert patches[0, channel, patch, place] == expected


@given(length=st.integers(1, 40), geometry=GEOMETRIES)
def test_padding_completes_the_last_patch_and_no_more(length, geometry):
    patch_length, stride = geometry
    padded = pad_to_patches(torch.ones(1, length), patch_length, stride)
    assert padded.shape[-1] == (num_patches(length, patch_length, stride) - 1) * stride + patch_length
    assert padded.sum() == length


def test_unfolding_whole_patches_copies_nothing():
    x = torch.zeros(2, 3, 20)
    assert unfold_patches(x, 4, 4).data_ptr() == x.data_ptr()


@settings(max_examples=200)
@given(
    rows=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=4),
    length=st.integers(1, 12),
    geometry=GEOMETRIES,
)
def test_patch_mask_equals_the_walk(rows, length, geometry):
    mask = torch.tensor(rows)[:, None, :length]
    patched = patch_mask(mask, *geometry)
    assert patched.tolist() == [slow_patch_mask(row[:length], *geometry) for row in rows]


@settings(max_examples=100)
@given(row=st.lists(st.booleans(), min_size=1, max_size=30), padding=st.integers(0, 30), geometry=GEOMETRIES)
def test_padding_adds_no_patch_that_counts(row, padding, geometry):
    mask = torch.tensor(row)[None, None]
    alone = patch_mask(mask, *geometry)
    padded = patch_mask(F.pad(mask, (0, padding)), *geometry)
    assert torch.equal(padded[:, : alone.shape[1]], alone)
    assert not padded[:, alone.shape[1] :].any()


@pytest.mark.parametrize("geometry", [(4, 4), (5, 2)])
def test_a_patch_counts_where_any_channel_is_observed(geometry):
    mask = torch.rand(3, 4, 37, generator=torch.Generator().manual_seed(0)) > 0.7
    mask[0] = False
    together = patch_mask(mask.any(dim=1, keepdim=True), *geometry)
    assert torch.equal(patch_mask(mask, *geometry), together)
    assert not together[0].any()
    assert patch_mask(None, *geometry) is None
