"""The page of an audit: a verdict in words, and the numbers behind it."""

import numpy as np

from krontime.reports.audit.measure import NEAR, Audit
from krontime.reports.markup import Table, markdown

_STRANGE = 3.0
"""Standard deviations of a guess that a control may be away from chance."""

_FEW = 0.01
"""Fraction of the test series that may be duplicates."""

_CAPTION = (
    "Balanced accuracies of a ridge classifier on MiniRocket's features (biases from the official training series), "
    "fitted to all series that are not tested on; nothing is tuned."
)


def verdicts(found: Audit) -> list[tuple[bool, str]]:
    """Whether each check is passed, and what it says in words."""
    return [_duplicates(found), _groups(found), _labels(found), _order(found), _shift(found), _neighbour(found)]


def write_page(found: Audit) -> str:
    """The page as Markdown."""
    checks = verdicts(found)
    failed = sum(not passed for passed, _ in checks)
    title = (
        "No check speaks against comparing models on it."
        if not failed
        else f"{failed} of {len(checks)} checks speak against taking scores on its official split at face value."
    )
    chance = f"{found.chance:.3f} ± {found.chance_error:.3f}"
    resamples = f"{np.mean(found.resamples):.3f} ± {np.std(found.resamples, ddof=1):.3f}"
    rows = [
        ["nearest neighbour, official split", f"{found.nearest_neighbour:.3f}"],
        ["kernels, official split", f"{found.official:.3f}"],
        ["kernels, time points permuted", f"{found.permuted:.3f}"],
        [f"kernels, training labels shuffled ({len(found.shuffled)} times)", f"{np.mean(found.shuffled):.3f}"],
        ["chance", chance],
        [f"kernels, resamples 1 to {len(found.resamples)} ({found.resampled_by})", resamples],
        ["split-shift index", f"{found.shift:+.3f}"],
    ]
    lines = [f"# Audit of {found.name}", "", f"**Verdict: {title}**", ""]
    lines += [
        f"{found.num_train:,} training and {found.num_test:,} test series of {found.num_classes} classes.",
        "",
        *(f"- {'passed' if passed else '**look here**'}: {text}" for passed, text in checks),
        "",
    ]
    return "\n".join(lines) + "\n" + markdown([Table("Scores", ["what", "balanced accuracy"], rows)], _CAPTION)


def _duplicates(found: Audit) -> tuple[bool, str]:
    if not found.near_duplicates:
        return True, "no test series is a training series, exactly or but for noise."
    text = (
        f"{found.duplicates:,} of {found.num_test:,} test series are training series to the last bit, "
        f"{found.near_duplicates:,} but for noise (root mean squared difference of the scaled series below {NEAR})."
    )
    return found.near_duplicates <= _FEW * found.num_test, text


def _groups(found: Audit) -> tuple[bool, str]:
    if found.group_name is None:
        return True, "the data names no groups (speakers, patients), so whether these leak is not known."
    if not found.shared_groups:
        return True, f"no {found.group_name} has series in both splits."
    text = (
        f"{found.shared_groups:,} groups ({found.group_name}) have series in both splits: the score says nothing of "
        "new ones. data.resample=1 splits by group."
    )
    return False, text


def _labels(found: Audit) -> tuple[bool, str]:
    mean = float(np.mean(found.shuffled))
    limit = _STRANGE * found.chance_error
    if abs(mean - found.chance) <= limit:
        return True, f"with shuffled labels the score is at chance ({mean:.3f}; a guess has {found.chance:.3f})."
    return False, (
        f"with shuffled labels the score is {mean:.3f}, and not {found.chance:.3f}, within {limit:.3f}: something "
        "gives test series their class other than what is learned."
    )


def _order(found: Audit) -> tuple[bool, str]:
    above = found.official - found.chance
    if above <= _STRANGE * found.chance_error:
        return (
            False,
            f"the score on the official split ({found.official:.3f}) is hardly above chance ({found.chance:.3f}).",
        )
    kept = float(np.clip((found.permuted - found.chance) / above, 0, 1))
    text = f"{kept:.0%} of the score above chance is left when all time points are permuted alike: "
    if kept > 0.9:
        return False, text + "the order of the points hardly matters, and a model of sequences has little to show here."
    return True, text + "the order of the points matters."


def _shift(found: Audit) -> tuple[bool, str]:
    spread = float(np.std(found.resamples, ddof=1))
    text = f"the official split scores {found.official:.3f}, resamples {np.mean(found.resamples):.3f} ± {spread:.3f}"
    if abs(found.shift) <= max(2 * spread, found.chance_error):
        return True, text + ": it is a split like others."
    way = "easier" if found.shift > 0 else "harder"
    return False, text + f": it is {way} than others, and differences of that size on it say little."


def _neighbour(found: Audit) -> tuple[bool, str]:
    text = f"the nearest neighbour scores {found.nearest_neighbour:.3f}, kernels {found.official:.3f}"
    if found.nearest_neighbour >= found.official:
        return False, text + ": nothing beyond looking alike is needed."
    if found.nearest_neighbour > 0.98:
        return False, text + ": there is no room for models to differ."
    return True, text + "."
