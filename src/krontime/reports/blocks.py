"""Generated text inside a page that is written by hand."""

import re
from pathlib import Path

from krontime.errors import UserError
from krontime.storage import replacing

_MARKER = re.compile(r"<!-- (?P<file>\S+\.md):(?P<end>begin|end) -->")


def fill_blocks(page: Path) -> list[str]:
    """Put a file's text into each block of a page, in place of what stood there.

    A block lies between `<!-- FILE.md:begin -->` and `<!-- FILE.md:end -->`, with the file's path below the page's
    folder.

    Returns:
        The files of the blocks.

    Raises:
        UserError: the page is not readable or has no block, markers do not come in pairs, or a file is missing; names
            all of them. The page stays as it was.
    """
    try:
        text = page.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise UserError(f"{page}: not a readable text file ({error})") from error
    markers = list(_MARKER.finditer(text))
    if not markers:
        raise UserError(f"{page}: expected a line <!-- FILE.md:begin --> and, after it, one <!-- FILE.md:end -->")
    pairs = list(zip(markers[::2], markers[1::2], strict=False))
    problems = []
    if len(markers) % 2 or any((a["end"], b["end"], a["file"]) != ("begin", "end", b["file"]) for a, b in pairs):
        problems.append(f"{page}: expected each <!-- FILE.md:begin --> to be followed by the end of the same block")
    contents = []
    for begin, _ in pairs:
        try:
            contents.append((page.parent / begin["file"]).read_text(encoding="utf-8").strip())
        except (OSError, ValueError) as error:
            problems.append(f"{page}: a block names {begin['file']}, which is not readable ({error})")
    if problems:
        raise UserError(problems)
    parts, position = [], 0
    for (begin, end), content in zip(pairs, contents, strict=True):
        parts += [text[position : begin.end()], f"\n\n{content}\n\n"]
        position = end.start()
    filled = "".join([*parts, text[position:]])
    if filled != text:
        with replacing(page) as temporary:
            temporary.write_bytes(filled.encode())
    return [begin["file"] for begin, _ in pairs]
