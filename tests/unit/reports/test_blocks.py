"""Blocks of a page are filled, again and again with the same result, or the page stays as it was."""

import pytest

from krontime.errors import UserError
from krontime.reports.blocks import fill_blocks

PAGE = "# Größe\r\n<!-- a/t.md:begin -->\nold\n<!-- a/t.md:end -->\r\ntail <!-- u.md:begin --><!-- u.md:end -->"


def test_each_block_gets_its_file_and_twice_is_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "t.md").write_text("| t |\n")
    (tmp_path / "u.md").write_text("é\n", encoding="utf-8")
    page = tmp_path / "README.md"
    page.write_bytes(PAGE.encode())
    assert fill_blocks(page) == ["a/t.md", "u.md"]
    once = page.read_bytes()
    assert once.decode() == (
        "# Größe\r\n<!-- a/t.md:begin -->\n\n| t |\n\n<!-- a/t.md:end -->\r\n"
        "tail <!-- u.md:begin -->\n\né\n\n<!-- u.md:end -->"
    )
    fill_blocks(page)
    assert page.read_bytes() == once


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected a line <!-- FILE.md:begin -->"),
        ("<!-- u.md:begin -->", "followed by the end of the same block"),
        ("<!-- u.md:end --> <!-- u.md:begin -->", "followed by the end of the same block"),
        ("<!-- u.md:begin --> <!-- a/t.md:end -->", "followed by the end of the same block"),
        ("<!-- u.md:begin --> <!-- u.md:begin --> <!-- u.md:end -->", "followed by the end of the same block"),
        ("<!-- u.md:begin --> <!-- u.md:end --> <!-- v.md:begin --> <!-- v.md:end -->", "names v.md"),
    ],
)
def test_a_page_that_cannot_be_filled_stays_as_it_was(tmp_path, text, problem):
    (tmp_path / "u.md").write_text("u")
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(UserError, match=problem):
        fill_blocks(page)
    assert page.read_text() == text
    with pytest.raises(UserError, match=r"none\.md: not a readable text file"):
        fill_blocks(tmp_path / "none.md")
