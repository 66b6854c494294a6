"""The page of an audit: a verdict in words, and the numbers behind it."""

import numpy as np

from krontime.reports.audit.measure import NEAR, Audit
from krontime.reports.markup import Table, markdown

TITLE = "# Audit of "
"""How a page begins."""

_STRANGE = 3.0
"""Standard deviations of a guess that a control may be away from chance."""

_FEW = 0.01
"""Fraction of the test series that may be duplicates."""

_CAPTION = (
    "Balanced accuracies of a ridge classifier on MiniRocket's features (biases from the official training series), "
    "fitted to all series that are not tested on; nothing is tuned."
)


def verdicts(audit: Audit) -> list[tuple[bool, str]]:
    """Whether each check is passed, and what it says in words."""
    return [_duplicates(audit), _groups(audit), _labels(audit), _order(audit), _shift(audit), _neighbour(audit)]


def write_page(audit: Audit) -> str:
    """The page as Markdown."""
    checks = verdicts(audit)
    failed = sum(not passed for passed, _ in checks)
    title = (
        "No check speaks against comparing models on it."
        if not failed
        else f"{failed} of {len(checks)} checks speak against taking scores on its official split at face value."
    )
    chance = f"{audit.chance:.3f} ± {audit.chance_error:.3f}"
    resamples = f"{np.mean(audit.resamples):.3f} ± {np.std(audit.resamples, ddof=1):.3f}"
    rows = [
        ["nearest neighbour, official split", f"{audit.nearest_neighbour:.3f}"],
        ["kernels, official split", f"{audit.official:.3f}"],
        ["kernels, time points permuted", f"{audit.permuted:.3f}"],
        [f"kernels, training labels shuffled ({len(audit.shuffled)} times)", f"{np.mean(audit.shuffled):.3f}"],
        ["chance", chance],
        [f"kernels, resamples 1 to {len(audit.resamples)} ({audit.resampled_by})", resamples],
        ["split-shift index", f"{audit.shift:+.3f}"],
    ]
    lines = [f"{TITLE}{audit.name}", "", f"**Verdict: {title}**", ""]
    lines += [
        f"{audit.num_train:,} training and {audit.num_test:,} test series of {audit.num_classes} classes.",
        "",
        *(f"- {'passed' if passed else '**look here**'}: {text}" for passed, text in checks),
        "",
    ]
    return "\n".join(lines) + "\n" + markdown([Table("Scores", ["what", "balanced accuracy"], rows)], _CAPTION)


def _duplicates(audit: Audit) -> tuple[bool, str]:
    if not audit.near_duplicates:
        return True, "no test series is a training series, exactly or but for noise."
    text = (
        f"{audit.duplicates:,} of {audit.num_test:,} test series are training series to the last bit, "
        f"{audit.near_duplicates:,} but for noise (root mean squared difference of the scaled series below {NEAR})."
    )
    return audit.near_duplicates <= _FEW * audit.num_test, text


def _groups(audit: Audit) -> tuple[bool, str]:
    if audit.group_name is None:
        return True, "the data names no groups (speakers, patients), so whether these leak is not known."
    if not audit.shared_groups:
        return True, f"no {audit.group_name} has series in both splits."
    text = (
        f"{audit.shared_groups:,} groups ({audit.group_name}) have series in both splits: the score says nothing of "
        "new ones. data.resample=1 splits by group."
    )
    return False, text


def _labels(audit: Audit) -> tuple[bool, str]:
    mean = float(np.mean(audit.shuffled))
    limit = _STRANGE * audit.chance_error
    if abs(mean - audit.chance) <= limit:
        return True, f"with shuffled labels the score is at chance ({mean:.3f}; a guess has {audit.chance:.3f})."
    return False, (
        f"with shuffled labels the score is {mean:.3f}, and not {audit.chance:.3f}, within {limit:.3f}: something "
        "gives test series their class other than what is learned."
    )


def _order(audit: Audit) -> tuple[bool, str]:
    above = audit.official - audit.chance
    if above <= _STRANGE * audit.chance_error:
        return (
            False,
            f"the score on the official split ({audit.official:.3f}) is hardly above chance ({audit.chance:.3f}).",
        )
    kept = float(np.clip((audit.permuted - audit.chance) / above, 0, 1))
    text = f"{kept:.0%} of the score above chance is left when all time points are permuted alike: "
    if kept > 0.9:
        return False, text + "the order of the points hardly matters, and a model of sequences has little to show here."
    return True, text + "the order of the points matters."


def _shift(audit: Audit) -> tuple[bool, str]:
    spread = float(np.std(audit.resamples, ddof=1))
    text = f"the official split scores {audit.official:.3f}, resamples {np.mean(audit.resamples):.3f} ± {spread:.3f}"
    if abs(audit.shift) <= max(2 * spread, audit.chance_error):
        return True, text + ": it is a split like others."
    way = "easier" if audit.shift > 0 else "harder"
    return False, text + f": it is {way} than others, and differences of that size on it say little."


def _neighbour(audit: Audit) -> tuple[bool, str]:
    text = f"the nearest neighbour scores {audit.nearest_neighbour:.3f}, kernels {audit.official:.3f}"
    if audit.nearest_neighbour >= audit.official:
        return False, text + ": nothing beyond looking alike is needed."
    if audit.nearest_neighbour > 0.98:
        return False, text + ": there is no room for models to differ."
    return True, text + "."
