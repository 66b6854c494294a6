"""The same table in Markdown and in LaTeX."""

import re

from krontime.reports.markup import Cell, Line, Table, latex, markdown

TABLE = Table(
    "Score_1",
    ["data", "a_b", "x|y"],
    [["A & B", Cell((Line("0.9", "best", " (n=3)"), Line("0.8", "second")), (1, 2)), "<1>"], ["C", "-", "50 %"]],
    rule_before=2,
)


def test_markdown():
    assert markdown([TABLE], "Caption.", ["first | note", "second"]) == (
        "**Score_1**\n\n"
        "| data | a_b | ‖ | x\\|y |\n"
        "|---|---:|---|---:|\n"
        "| A & B | **0.9** (n=3)<br><u>0.8</u> <sup>1,2</sup> | ‖ | &lt;1> |\n"
        "| C | - | ‖ | 50 % |\n\n"
        "Caption.\n\n"
        "<sup>1</sup> first \\| note  \n<sup>2</sup> second\n"
    )


def test_latex():
    text = latex([TABLE], "50 % ± 1", ["a note"])
    assert "\\begin{tabular}{lr|r}" in text
    assert (
        "A \\& B & \\shortstack[r]{\\textbf{0.9} (n=3) \\\\ \\underline{0.8}} \\textsuperscript{1,2} & "
        "\\textless{}1\\textgreater{} \\\\"
    ) in text
    assert "\\caption{Score\\_1. 50 \\% $\\pm$ 1}" in text
    assert "\\textsuperscript{1} a note\n\\end{table}" in text
    assert not re.search(r"(?<!\\)[_%#]", text.partition("\n")[2])
    for environment in ("table", "tabular"):
        assert text.count(f"\\begin{{{environment}}}") == text.count(f"\\end{{{environment}}}") == 1
