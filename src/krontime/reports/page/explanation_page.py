"""The page that explains how single series are classified."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from krontime.reports.page import figures
from krontime.reports.page.content import Example
from krontime.reports.page.render import Section, Table, write_page
from krontime.runs.neighbours import Neighbour
from krontime.training.attribution import Attribution
from krontime.training.verdicts import Verdicts

FEW_TOKENS = 16


@dataclass(frozen=True)
class Explained:
    """One series with its attribution.

    Attributes:
        index: position among the series that were read.
        file: that it was read from; None where one file holds all.
        label: its class name where the file has one.
        values: `(C, L)`, NaN where missing.
        probability: `(K,)` of every class.
        attribution: of the class that is explained.
        verdicts: of closed form and network.
        neighbours: the nearest training series.
        num_tokens: tokens that the series' points became, without padding; None where there are none.
    """

    index: int
    file: str | None
    label: str | None
    values: np.ndarray
    probability: np.ndarray
    attribution: Attribution
    verdicts: Verdicts
    neighbours: Sequence[Neighbour]
    num_tokens: int | None


def write_explanation(
    explained: Sequence[Explained],
    class_names: Sequence[str],
    sampling_rate_hz: float | None,
    source: str,
    path: Path,
    *,
    missing: str | None = None,
) -> None:
    """Write the page, whole or not at all.

    Args:
        explained: the series.
        class_names: of the run.
        sampling_rate_hz: of the series; None where it is not known.
        source: name of the file or folder that they come from.
        path: the page.
        missing: why no training series are shown; None where they are, or none were asked for.
    """
    sections = [_section(each, class_names, sampling_rate_hz, missing) for each in explained]
    verdict = (
        "Occlusion hides one stretch after the other and sees what becomes of the whole model's log-odds; integrated "
        "gradients ask the network alone. Both say what this model uses, not what is true of the recording."
    )
    write_page(f"How {source} was classified", verdict, sections, path)


def _section(each: Explained, class_names: Sequence[str], rate: float | None, missing: str | None) -> Section:
    target = class_names[each.attribution.target]
    example = Example("", each.index, each.file, each.label, target, each.attribution.probability, each.values)
    series = figures.series(example, rate)
    shown = [series]
    ours = each.attribution
    shown.append(figures.attributions(ours.occlusion.numpy(), ours.gradients.numpy(), rate, series.plot.x_range))
    words = [_who_answers(each.verdicts)]
    if ours.attention and each.num_tokens is not None:
        if each.num_tokens < FEW_TOKENS:
            words.append(f"The network sees {each.num_tokens} tokens, too few for its attention to mean much.")
        received = [part.numpy()[: each.num_tokens] for part in ours.attention]
        duration = each.values.shape[-1] / (rate or 1)
        shown.append(figures.attention(received, duration, "s" if rate else "points", series.plot.x_range))
    shown += [
        figures.drawn(f"{_name(near)}: {near.label}", f"distance {near.distance:.3f}", near.values, rate)
        for near in each.neighbours
    ]
    if missing:
        words.append(f"The nearest training series are not shown: {missing}.")
    tables = [_probabilities(each, class_names), *_levels(each, target), *_neighbours(each)]
    return Section(f"{each.file or f'Series {each.index}'}: {target}", words, tables, shown)


def _name(near: Neighbour) -> str:
    return f"Training series {near.file or near.position}"


def _who_answers(verdicts: Verdicts) -> str:
    if verdicts.network is None:
        return "The closed form answers alone."
    if verdicts.closed_form is None:
        return "The network answers alone."
    if verdicts.weight == 0:
        return "The closed form answers alone: on validation series the network did not improve on it."
    return f"The answer is {verdicts.weight:.2f} of the network's probabilities and the rest of the closed form's."


def _probabilities(each: Explained, class_names: Sequence[str]) -> Table:
    order = np.argsort(-each.probability)[:5].tolist()
    parts = (("closed form", each.verdicts.closed_form), ("network", each.verdicts.network))
    header, columns = ["class", "answer"], [each.probability]
    for name, probability in parts:
        if probability is not None:
            header.append(name)
            columns.append(probability.numpy())
    rows = [[class_names[place], *(f"{column[place]:.3f}" for column in columns)] for place in order]
    return Table(f"Probabilities of {each.file or f'series {each.index}'}", header, rows)


def _levels(each: Explained, target: str) -> list[Table]:
    if not each.verdicts.levels:
        return []
    rows = [
        [str(level), f"{size:,} token{'s' * (size > 1)}", f"{added:+.3f}"]
        for level, (size, added) in enumerate(each.verdicts.levels)
    ]
    title = f"What each level of the network adds to the logit of {target}, over the mean of the classes"
    return [Table(title, ["level", "mean of groups of", "added"], rows)]


def _neighbours(each: Explained) -> list[Table]:
    if not each.neighbours:
        return []
    rows = [[near.file or str(near.position), near.label, f"{near.distance:.3f}"] for near in each.neighbours]
    title = "Nearest training series (root mean square difference of the closed form's standardised features)"
    return [Table(title, ["training series", "class", "distance"], rows)]
