"""Copies: series that are alike to the last bit, and stretches of training recordings in recordings to test on.

A copy of a stretch need not begin where the original does, nor be of the same length: fingerprints are of stretches
that their own values choose, as in Winnowing (Schleimer, Wilkerson and Aiken, 2003), and so are the same wherever these
stand.

Shape letters: C channels, L time points, f fingerprints.
"""

import numpy as np

from krontime.data.series import SeriesData
from krontime.errors import UserError

STRETCH = 64
"""Time points of a stretch."""

ONE_OF = 128
"""One of so many stretches is kept."""

MAX_PRINTS = 1 << 21
"""Fingerprints of a data set at most, 32 MB: of one with more points, fewer stretches are kept."""

MIN_VARIED = STRETCH // 2
"""Different points that a stretch needs: silence and steady states are alike everywhere."""

AT_ONCE = 1 << 20
"""Stretches that are looked at together."""

REFUSED = 0.05
"""Fraction of a recording's fingerprints that may be those of others."""

MIN_COPIED = 5
MAX_SHOWN = 5

_PRIME = np.uint64(0x9E3779B97F4A7C15)


def copies_among(data: SeriesData, indices: np.ndarray) -> np.ndarray | None:
    """int64 codes of the series at `indices`, the same for the same values to the last bit; None where all differ."""
    if data.digests is None:
        return None
    distinct, codes = np.unique(data.digests[indices], return_inverse=True)
    return codes if len(distinct) < len(indices) else None


def fingerprints(values: np.ndarray) -> np.ndarray:
    """uint64 `(f,)`: hashes of some stretches of `(C, L)` float32, without repetition."""
    parts = [
        _fingerprints(values[:, start : start + AT_ONCE + STRETCH - 1])
        for start in range(0, values.shape[1] - STRETCH + 1, AT_ONCE)
    ]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))


def _fingerprints(values: np.ndarray) -> np.ndarray:
    point = np.zeros(values.shape[1], np.uint64)
    for channel in values:  # arithmetic modulo 2**64
        point = _mixed(point ^ np.ascontiguousarray(channel, np.float32).view(np.uint32).astype(np.uint64))
    prints = point
    width = 1
    while width < STRETCH:  # of 2, 4, ... points: twice as many from two neighbours
        prints = _mixed(prints[:-width] * _PRIME + prints[width:])
        width *= 2
    chosen = np.flatnonzero(prints % np.uint64(ONE_OF) == 0)
    varied = [i for i in chosen.tolist() if len(np.unique(point[i : i + STRETCH])) >= MIN_VARIED]
    return prints[varied]


def _mixed(number: np.ndarray) -> np.ndarray:
    number = (number ^ (number >> np.uint64(31))) * _PRIME
    return number ^ (number >> np.uint64(29))


def thinned(prints: list[np.ndarray], one_of: int) -> list[np.ndarray]:
    """Keep about one of `one_of` stretches, the same ones of all recordings, so that copies still meet.

    Args:
        prints: rows `(f, 2)` as `refuse_copies` takes them, of which one of `ONE_OF` stretches or more was kept.
        one_of: a multiple of `ONE_OF`, which halves what is kept each time that it is doubled.
    """
    return [rows[rows[:, 1] % np.uint64(one_of) == 0] for rows in prints]


def refuse_copies(data: SeriesData, prints: np.ndarray) -> None:
    """Refuse test recordings of which much stands in training recordings too.

    Args:
        data: recordings.
        prints: uint64 `(f, 2)` rows of a recording's position and one of its fingerprints.

    Raises:
        UserError: there are such; names them, how much of them it is, and where it stands.
    """
    owner, prints_of = prints[:, 0].astype(np.int64), prints[:, 1]
    is_test = data.is_test[owner]
    trained, first = np.unique(prints_of[~is_test], return_index=True)
    trained_owner = owner[~is_test][first]
    problems = []
    copied = is_test & np.isin(prints_of, trained)
    for recording in np.unique(owner[copied]).tolist():
        mine = owner == recording
        count, total = int((mine & copied).sum()), int(mine.sum())
        if count < MIN_COPIED or count <= REFUSED * total:
            continue
        where = trained_owner[np.searchsorted(trained, prints_of[mine & copied])]
        original = int(np.bincount(where).argmax())
        problems.append(
            f"test recording {_name(data, recording)}: {count / total:.0%} of it stands in training recording "
            f"{_name(data, original)} too ({count:,} of {total:,} stretches compared)"
        )
    if problems:
        more = [f"... ({len(problems)} in all)"] if len(problems) > MAX_SHOWN else []
        raise UserError(
            [
                *problems[:MAX_SHOWN],
                *more,
                "expected recordings of their own to test on: leave copies out, or test on all that share them "
                "(data.source.test_groups=[NAME,...])",
            ]
        )


def _name(data: SeriesData, recording: int) -> str:
    return repr(data.recording_names[recording]) if data.recording_names else str(recording)
