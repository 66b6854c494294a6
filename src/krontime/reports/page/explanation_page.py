"""The page that explains how single series are classified."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from krontime.reports.page import figures
from krontime.reports.page.content import Example
from krontime.reports.page.render import Section, Table, write_page
from krontime.training.attribution import Attribution

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
        num_tokens: tokens that the series' points became, without padding; None where there are none.
    """

    index: int
    file: str | None
    label: str | None
    values: np.ndarray
    probability: np.ndarray
    attribution: Attribution
    num_tokens: int | None


def write_explanation(
    explained: Sequence[Explained], class_names: Sequence[str], sampling_rate_hz: float | None, source: str, path: Path
) -> None:
    """Write the page, whole or not at all."""
    sections = [_section(each, class_names, sampling_rate_hz) for each in explained]
    verdict = (
        "Occlusion hides one stretch after the other and sees what becomes of the whole model's log-odds; integrated "
        "gradients ask the network alone. Both say what this model uses, not what is true of the recording."
    )
    write_page(f"How {source} was classified", verdict, sections, path)


def _section(each: Explained, class_names: Sequence[str], rate: float | None) -> Section:
    target = class_names[each.attribution.target]
    known = "unknown" if each.label is None else each.label
    example = Example("explained", each.index, known, target, each.attribution.probability, each.values)
    series = figures.series(example, rate)
    shown = [series]
    ours = each.attribution
    shown.append(figures.attributions(ours.occlusion.numpy(), ours.gradients.numpy(), rate, series.plot.x_range))
    words = []
    if ours.attention and each.num_tokens is not None:
        if each.num_tokens < FEW_TOKENS:
            words.append(f"The network sees {each.num_tokens} tokens, too few for its attention to mean much.")
        received = [part.numpy()[: each.num_tokens] for part in ours.attention]
        duration = each.values.shape[-1] / (rate or 1)
        shown.append(figures.attention(received, duration, "s" if rate else "points", series.plot.x_range))
    order = np.argsort(-each.probability)[:5]
    rows = [[class_names[place], f"{each.probability[place]:.3f}"] for place in order.tolist()]
    table = Table(f"Probabilities of series {each.index}", ["class", "probability"], rows)
    where = f" ({each.file})" if each.file else ""
    return Section(f"Series {each.index}{where}: {target}", words, [table], shown)
