import itertools
import math

import pytest

from krontime.ops.levels import MAX_RATIO, LevelPlan, plan_levels

TOKENS = [1, 2, 3, 5, 7, 13, 64, 97, 182, 183, 1000, 2047, 2048, 2049, 16381, 131072]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("num_tokens", TOKENS)
def test_plan_holds_all_tokens_and_is_balanced(num_tokens: int, depth: int) -> None:
    plan = plan_levels(num_tokens, depth=depth)
    assert plan.padded_tokens == math.prod(plan.sizes) >= num_tokens
    assert plan.waste == pytest.approx((plan.padded_tokens - num_tokens) / plan.padded_tokens)
    assert max(plan.sizes) <= MAX_RATIO * min(plan.sizes)
    assert list(plan.sizes) == sorted(plan.sizes, reverse=True)
    assert plan.depth == min(depth, max(1, int(math.log2(num_tokens))))
    assert num_tokens == 1 or min(plan.sizes) > 1


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_plan_is_the_best_of_all_balanced_sizes(depth: int) -> None:
    for num_tokens in range(8, 60):
        allowed = (
            sizes
            for sizes in itertools.product(range(1, num_tokens + 1), repeat=depth)
            if math.prod(sizes) >= num_tokens and max(sizes) <= MAX_RATIO * min(sizes)
        )
        best = min((math.prod(sizes), sum(sizes)) for sizes in allowed)
        plan = plan_levels(num_tokens, depth=depth)
        assert (plan.padded_tokens, sum(plan.sizes)) == best


@pytest.mark.parametrize("exponent", range(2, 18))
def test_powers_of_two_need_no_padding(exponent: int) -> None:
    for depth in range(1, 6):
        assert plan_levels(2**exponent, depth=depth).waste == 0


def test_padding_is_small_for_any_long_series() -> None:
    for num_tokens in range(500, 4000, 37):
        for depth, bound in ((1, 0.0), (2, 0.01), (3, 0.03), (4, 0.06)):
            assert plan_levels(num_tokens, depth=depth).waste <= bound


def test_explicit_sizes_are_kept() -> None:
    plan = plan_levels(100, sizes=[4, 1, 30])
    assert plan == LevelPlan(sizes=(4, 1, 30), num_tokens=100)
    assert plan.waste == pytest.approx(1 / 6)


@pytest.mark.parametrize("sizes", [(5,), (4, 3), (2, 3, 4), (3, 1, 2)])
def test_trim_drops_whole_slices_and_keeps_coordinates(sizes: tuple[int, ...]) -> None:
    plan = LevelPlan(sizes, math.prod(sizes))
    assert plan.trim(plan.padded_tokens) == sizes
    for num_tokens in range(1, plan.padded_tokens + 1):
        trimmed = plan.trim(num_tokens)
        padded = math.prod(trimmed)
        assert num_tokens <= padded
        assert plan.trim(padded) == trimmed
        # A token's index is the same in the trimmed and the planned tensor: levels under the highest one that is
        # still in use are whole.
        top = max((level for level, size in enumerate(trimmed) if size > 1), default=0)
        assert trimmed[:top] == sizes[:top]
        # One slice less would not do.
        assert trimmed[top] == 1 or num_tokens > math.prod(trimmed[:top]) * (trimmed[top] - 1)


@pytest.mark.parametrize(
    ("arguments", "count", "words"),
    [
        ({"num_tokens": 0, "depth": 2}, 1, ["num_tokens=0"]),
        ({"num_tokens": 10}, 1, ["depth=None", "either a depth or sizes"]),
        ({"num_tokens": 10, "depth": 2, "sizes": [5, 2]}, 1, ["either a depth or sizes"]),
        ({"num_tokens": 10, "depth": 0}, 1, ["depth=0"]),
        ({"num_tokens": 10, "depth": 2.5}, 1, ["depth=2.5"]),
        ({"num_tokens": 10, "sizes": []}, 1, ["sizes=[]"]),
        ({"num_tokens": 10, "sizes": [3, -4]}, 1, ["sizes=[3, -4]"]),
        ({"num_tokens": 10, "sizes": [3, 3]}, 1, ["sizes=[3, 3]", "at least 10"]),
        ({"num_tokens": 0, "depth": 0, "sizes": [0]}, 4, ["num_tokens=0", "depth=0", "sizes=[0]"]),
    ],
)
def test_all_problems_are_told_at_once(arguments: dict, count: int, words: list[str]) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        plan_levels(**arguments)
    assert len(str(error.value).splitlines()) == count
    for word in words:
        assert word in str(error.value)
