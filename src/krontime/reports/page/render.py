"""Sections of text, tables and figures as one HTML file that holds all it needs."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from krontime import __version__
from krontime.errors import UserError
from krontime.reports.page.figures import Figure
from krontime.storage import replacing

MAX_LINES = 20
"""Lines of text to be copied that are shown at once."""


class Table(NamedTuple):
    """Rows of text; the first cell of each names it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Code(NamedTuple):
    """Text to be copied."""

    title: str
    text: str

    @property
    def is_long(self) -> bool:
        """Whether it is shown only where it is asked for."""
        return self.text.count("\n") > MAX_LINES


@dataclass(frozen=True)
class Section:
    """A part of a page under its title."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    code: Sequence[Code] = field(default_factory=tuple)


def check_installed(command: str, *packages: str) -> None:
    """Refuse to begin where the extra of a command, which is named as the command, is not installed.

    Raises:
        UserError: with what to install.
    """
    missing = [name for name in ("bokeh", "jinja2", *packages) if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{command} needs {', '.join(missing)}: pip install 'krontime[{command}]'")


def write_page(title: str, verdict: str, sections: Sequence[Section], path: Path) -> None:
    """Write the page, whole or not at all."""
    from bokeh.embed import components
    from bokeh.resources import Resources
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    figures = {
        f"{number}-{position}": figure.plot
        for number, section in enumerate(sections)
        for position, figure in enumerate(section.figures)
    }
    script, divs = components(figures) if figures else ("", {})
    shown: list[dict[str, Any]] = [
        {
            **{name: getattr(section, name) for name in ("title", "paragraphs", "tables", "code")},
            "figures": [
                {**figure._asdict(), "div": Markup(divs[f"{number}-{position}"])}
                for position, figure in enumerate(section.figures)
            ],
        }
        for number, section in enumerate(sections)
    ]
    environment = Environment(
        loader=PackageLoader("krontime.reports.page", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("page.html.j2").render(
        title=title,
        verdict=verdict,
        sections=shown,
        version=__version__,
        scripts=Markup(Resources(mode="inline", components=["bokeh"]).render()) if figures else "",
        plots=Markup(script),
    )
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
