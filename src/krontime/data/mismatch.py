"""How new series differ from those that a model was trained on: what to refuse, unless the user allows it."""

from collections.abc import Collection, Sequence

import numpy as np

from krontime.data.series import SeriesData, SeriesSpec

ALLOWABLE = ("length", "rate")
"""What a user may allow to differ."""

RATE_TOLERANCE = 1e-3
MAX_NAMED = 3


def mismatches(
    data: SeriesData, spec: SeriesSpec, *, names: Sequence[str], given: str, allow: Collection[str] = ()
) -> list[str]:
    """A line for each way in which prepared series differ from those of training.

    Args:
        data: new series, prepared as those of training were.
        spec: what was trained on.
        names: of each new series, for messages.
        given: the input, for messages.
        allow: what may differ.
    """
    problems = []
    if data.num_channels != spec.num_channels:
        problems.append(f"expected {spec.num_channels} channels, found {data.num_channels}")
    if "length" not in allow:
        problems += length_problems(data, spec, names)
    if "rate" not in allow and (problem := rate_problem(data, spec, names)):
        problems.append(problem)
    return [f"input={given!r}: {problem}" for problem in problems]


def length_problems(
    data: SeriesData, spec: SeriesSpec, names: Sequence[str], *, typed: str = "allow=[length]"
) -> list[str]:
    """A line where prepared series are shorter or longer than any of training.

    Args:
        data, spec, names: see `mismatches`.
        typed: what allows it.
    """
    lengths, low, high = data.lengths, spec.min_length, spec.length
    if spec.given_lengths is not None and data.given_lengths is not None:
        lengths, (low, high) = data.given_lengths, spec.given_lengths
    problems = []
    if (longer := np.flatnonzero(lengths > high)).size:
        problems.append(
            f"expected at most {high} points, as in training; {_these(longer, lengths, names)}; {typed} cuts them"
        )
    if low is not None and (shorter := np.flatnonzero(lengths < low)).size:
        problems.append(
            f"expected at least {low} points, as in training; {_these(shorter, lengths, names)}; "
            f"{typed} classifies them all the same"
        )
    return problems


def rate_problem(
    data: SeriesData,
    spec: SeriesSpec,
    names: Sequence[str],
    *,
    ways: str = "; resample=true brings them to that rate, allow=[rate] takes them as they are",
) -> str | None:
    """A line where series have another sampling rate than those of training, as far as rates are known.

    Args:
        data, spec, names: see `mismatches`.
        ways: what can be done about it.
    """
    trained = spec.sampling_rate_hz
    rates = data.rates_hz
    if rates is None and data.sampling_rate_hz is not None:
        rates = np.full(len(data), data.sampling_rate_hz)
    if trained is None or rates is None:
        return None
    other = np.flatnonzero(np.abs(rates - trained) > RATE_TOLERANCE * trained)
    if not other.size:
        return None
    shown = ", ".join(f"{rate:,.6g}" for rate in np.unique(rates[other])[:MAX_NAMED].tolist())
    return (
        f"expected {trained:,.6g} points per second, as in training; {other.size} of {len(rates)} series have {shown} "
        f"(such as {names[other[0]]}){ways}"
    )


def _these(positions: np.ndarray, lengths: np.ndarray, names: Sequence[str]) -> str:
    """`series 3 has 61`, or how many there are, with the extremes."""
    first = int(positions[0])
    name = f" ({names[first]})" if len(set(names)) > 1 else ""
    if len(positions) == 1:
        return f"series {first}{name} has {lengths[first]}"
    return (
        f"{len(positions)} of {len(lengths)} series have {lengths[positions].min()} to {lengths[positions].max()}, as "
        f"series {first}{name} with {lengths[first]}"
    )
