"""Turn a number of tokens into level sizes.

A decomposition `(k_1, ..., k_h)`, lowest level first, holds `prod(k_i) >= num_tokens` tokens; the rest is padding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from krontime.errors import Problems

MAX_RATIO = 2
"""Largest level over smallest level that the planner accepts; 2 lets it meet every power of two exactly."""


@dataclass(frozen=True)
class LevelPlan:
    """Level sizes for a number of tokens.

    Attributes:
        sizes: `(k_1, ..., k_h)`, lowest level first.
        num_tokens: tokens that the plan was made for.
    """

    sizes: tuple[int, ...]
    num_tokens: int

    @property
    def depth(self) -> int:
        """h, the number of levels."""
        return len(self.sizes)

    @property
    def padded_tokens(self) -> int:
        """N, the product of the level sizes."""
        return math.prod(self.sizes)

    @property
    def waste(self) -> float:
        """Fraction of the padded tokens that is padding, in [0, 1)."""
        return 1 - self.num_tokens / self.padded_tokens

    def trim(self, num_tokens: int) -> tuple[int, ...]:
        """Level sizes that suffice for a shorter batch.

        Trailing slices of the highest level are dropped; only where one slice is left does the level below shrink
        as well. The coordinates of the remaining tokens, and so every product over them, stay the same.

        Args:
            num_tokens: tokens in the batch, 1 to `padded_tokens`.

        Returns:
            One size per level, lowest first.
        """
        assert 1 <= num_tokens <= self.padded_tokens
        sizes = list(self.sizes)
        for level in reversed(range(self.depth)):
            sizes[level] = -(-num_tokens // math.prod(self.sizes[:level]))
            if sizes[level] > 1:
                break
        return tuple(sizes)


MAX_TOKENS = 2**24
"""Maximum number of tokens that sizes are chosen for: the search takes seconds there."""


def plan_levels(num_tokens: int, depth: int | None = None, sizes: Sequence[int] | None = None) -> LevelPlan:
    """Choose level sizes for a number of tokens, from a depth or as given.

    The rule for a depth: among all sizes whose largest is at most twice the smallest, take the smallest padding, then
    the smallest `sum(k_i)` (which is what attention costs), largest level lowest. A depth that would leave a level with
    a single token (a level that does nothing) is lowered to `floor(log2(num_tokens))`, at least 1.

    Args:
        num_tokens: tokens of the longest series, at least 1.
        depth: number of levels; or None where `sizes` is given.
        sizes: explicit level sizes, lowest first; or None where `depth` is given.

    Returns:
        The plan.

    Raises:
        ValueError: names every argument that cannot work.
    """
    problems = Problems()
    if not _is_positive(num_tokens):
        problems.add("num_tokens", num_tokens, "an integer of at least 1")
    if (depth is None) == (sizes is None):
        problems.add("depth", depth, f"either a depth or sizes, and not both (sizes={sizes!r})")
    elif depth is not None and num_tokens > MAX_TOKENS:
        problems.add(
            "num_tokens", num_tokens, f"at most {MAX_TOKENS:,} to choose sizes for; a longer stride makes fewer"
        )
    if depth is not None and not _is_positive(depth):
        problems.add("depth", depth, "an integer of at least 1")
    if sizes is not None and not (len(sizes) > 0 and all(_is_positive(size) for size in sizes)):
        problems.add("sizes", list(sizes), "integers of at least 1, lowest level first")
    elif sizes is not None and _is_positive(num_tokens) and math.prod(sizes) < num_tokens:
        problems.add("sizes", list(sizes), f"a product of at least {num_tokens}, the number of tokens")
    problems.raise_value_error()
    if sizes is not None:
        return LevelPlan(tuple(sizes), num_tokens)
    assert depth is not None
    return LevelPlan(_balanced_sizes(num_tokens, max(1, min(depth, num_tokens.bit_length() - 1))), num_tokens)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@lru_cache
def _balanced_sizes(num_tokens: int, depth: int) -> tuple[int, ...]:
    """The sizes with the smallest (product, sum) among those with `product >= num_tokens`, `max <= MAX_RATIO * min`."""
    best: tuple[int, int, tuple[int, ...]] | None = None

    def search(chosen: tuple[int, ...], product: int) -> None:
        # Sizes are chosen from the smallest up; the last one is the smallest that reaches num_tokens.
        nonlocal best
        left = depth - len(chosen)
        smallest = chosen[-1] if chosen else 1
        if left == 1:
            last = max(smallest, -(-num_tokens // product))
            if last <= MAX_RATIO * (chosen[0] if chosen else last):
                candidate = (product * last, sum(chosen) + last, (last, *reversed(chosen)))
                best = candidate if best is None else min(best, candidate)
            return
        for size in range(smallest, num_tokens + 1):
            search((*chosen, size), product * size)
            if product * size**left >= num_tokens:
                break  # larger sizes only add padding

    search((), 1)
    assert best is not None  # depth equal sizes of ceil(num_tokens ** (1 / depth)) always qualify
    return best[2]
