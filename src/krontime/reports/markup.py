"""Tables as Markdown and as LaTeX, from one description."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Mark = Literal["best", "second"]


@dataclass(frozen=True)
class Line:
    """One line of a cell.

    Attributes:
        text: what a mark applies to.
        mark: `best` is set in bold, `second` underlined.
        after: what follows unmarked.
    """

    text: str
    mark: Mark | None = None
    after: str = ""


@dataclass(frozen=True)
class Cell:
    """Lines one below the other, and the numbers of the notes that belong to them."""

    lines: tuple[Line, ...]
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: what its numbers are.
        header: a cell for each column.
        body: rows of as many cells.
        num_left: columns that are set to the left; the others hold numbers.
        rule_before: position of a column that a vertical rule stands before; None for no rule.
        rule_above: position of a row of the body that a horizontal rule stands above; None for no rule.
    """

    title: str
    header: Sequence[str | Cell]
    body: Sequence[Sequence[str | Cell]]
    num_left: int = 1
    rule_before: int | None = None
    rule_above: int | None = None


def markdown(tables: Sequence[Table], caption: str, notes: Sequence[str] = ()) -> str:
    """The tables with their titles above and the caption and the numbered notes below."""
    parts = []
    for table in tables:
        rows = [[_content(cell, _markdown_line, "<br>", "<sup>{}</sup>") for cell in row] for row in _rows(table)]
        align = ["---"] * table.num_left + ["---:"] * (len(rows[0]) - table.num_left)
        if table.rule_before is not None:  # Markdown has no rules between columns
            rows = [[*row[: table.rule_before], "‖", *row[table.rule_before :]] for row in rows]
            align.insert(table.rule_before, "---")
        lines = [f"| {' | '.join(row)} |" for row in rows]
        if table.rule_above is not None:  # nor between rows
            lines.insert(1 + table.rule_above, f"| {' | '.join(['═'] * len(align))} |")
        parts.append("\n".join([f"**{table.title}**", "", lines[0], f"|{'|'.join(align)}|", *lines[1:]]))
    parts.append(caption)
    if notes:
        numbered = (f"<sup>{number}</sup> {_escaped(note)}" for number, note in enumerate(notes, start=1))
        parts.append("  \n".join(numbered))
    return "\n\n".join(parts) + "\n"


def latex(tables: Sequence[Table], caption: str, notes: Sequence[str] = ()) -> str:
    """The same for LaTeX with the package booktabs; notes stand below the last table."""
    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        header, *body = (
            " & ".join(_content(cell, _latex_line, " \\\\ ", "\\textsuperscript{{{}}}") for cell in row) + " \\\\"
            for row in _rows(table)
        )
        if table.rule_above is not None:
            body.insert(table.rule_above, "\\midrule")
        columns = list("l" * table.num_left + "r" * (len(table.header) - table.num_left))
        if table.rule_before is not None:
            columns.insert(table.rule_before, "|")
        lines = [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_tex(table.title)}. {_tex(caption)}}}",
            f"\\begin{{tabular}}{{{''.join(columns)}}}",
            "\\toprule",
            header,
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
        ]
        if table is tables[-1]:
            lines += [
                f"\\par\\footnotesize \\textsuperscript{{{number}}} {_tex(note)}"
                for number, note in enumerate(notes, start=1)
            ]
        parts.append("\n".join([*lines, "\\end{table}"]))
    return "\n\n".join(parts) + "\n"


def _rows(table: Table) -> list[list[Cell]]:
    rows = [
        [cell if isinstance(cell, Cell) else Cell((Line(cell),)) for cell in row] for row in (table.header, *table.body)
    ]
    assert {len(row) for row in rows} == {len(table.header)}
    return rows


def _content(cell: Cell, line: Callable[[Line], str], newline: str, note: str) -> str:
    text = newline.join(map(line, cell.lines))
    if len(cell.lines) > 1 and line is _latex_line:
        text = f"\\shortstack[r]{{{text}}}"
    numbers = ",".join(map(str, cell.notes))
    return text + (f" {note.format(numbers)}" if numbers else "")


def _markdown_line(line: Line) -> str:
    form = {"best": "**{}**", "second": "<u>{}</u>", None: "{}"}[line.mark]
    return form.format(_escaped(line.text)) + _escaped(line.after)


def _latex_line(line: Line) -> str:
    form = {"best": "\\textbf{{{}}}", "second": "\\underline{{{}}}", None: "{}"}[line.mark]
    return form.format(_tex(line.text)) + _tex(line.after)


def _escaped(text: str) -> str:
    lines = text[:1].isspace() * " " + " ".join(text.split())
    return lines.replace("|", "\\|").replace("<", "&lt;")


_SPECIAL = {
    **{letter: f"\\{letter}" for letter in "_%&#${}"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "`": "",
}


def _tex(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
