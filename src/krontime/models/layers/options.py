"""Checks that the options of several networks share."""

from collections.abc import Mapping
from typing import Any, get_args

from krontime.errors import Problems


def check_options(
    problems: Problems,
    *,
    sizes: Mapping[str, int] | None = None,
    fractions: Mapping[str, float] | None = None,
    choices: Mapping[str, tuple[str, Any]] | None = None,
) -> None:
    """Note which options of a network cannot work.

    Args:
        problems: collects them, each by the name of its argument.
        sizes: whole numbers of at least 1.
        fractions: numbers of at least 0 and less than 1.
        choices: a word, and the `Literal` of the words it may be.
    """
    for name, size in (sizes or {}).items():
        if size < 1:
            problems.add(name, size, "an integer of at least 1")
    for name, (word, words) in (choices or {}).items():
        if word not in get_args(words):
            problems.add(name, word, f"one of {', '.join(get_args(words))}")
    for name, fraction in (fractions or {}).items():
        if not 0 <= fraction < 1:
            problems.add(name, fraction, "a fraction of at least 0 and less than 1")


def check_heads(problems: Problems, *, d_model: int, num_heads: int) -> None:
    """Note where `num_heads` heads do not divide a width of `d_model` evenly."""
    check_options(problems, sizes={"d_model": d_model})
    if d_model >= 1 and (num_heads < 1 or d_model % num_heads):
        problems.add("num_heads", num_heads, f"a divisor of d_model={d_model}")
