"""Checks that the options of several networks share."""

from collections.abc import Mapping
from typing import Any, get_args

from krontime.errors import Problems


def check_options(
    problems: Problems,
    *,
    sizes: Mapping[str, int] | None = None,
    shares: Mapping[str, float] | None = None,
    choices: Mapping[str, tuple[str, Any]] | None = None,
) -> None:
    """Note which options of a network cannot work.

    Args:
        problems: collects them, each under `model.NAME`.
        sizes: whole numbers of at least 1.
        shares: numbers of at least 0 and less than 1.
        choices: a word, and the `Literal` of the words it may be.
    """
    for name, size in (sizes or {}).items():
        if size < 1:
            problems.add(f"model.{name}", size, "an integer of at least 1")
    for name, (word, words) in (choices or {}).items():
        if word not in get_args(words):
            problems.add(f"model.{name}", word, f"one of {', '.join(get_args(words))}")
    for name, share in (shares or {}).items():
        if not 0 <= share < 1:
            problems.add(f"model.{name}", share, "a share of at least 0 and less than 1")


def check_heads(problems: Problems, *, d_model: int, num_heads: int) -> None:
    """Note where `num_heads` heads do not share a width of `d_model` evenly."""
    check_options(problems, sizes={"d_model": d_model})
    if d_model >= 1 and (num_heads < 1 or d_model % num_heads):
        problems.add("model.num_heads", num_heads, f"a divisor of model.d_model={d_model}")
