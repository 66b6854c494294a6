"""What the user sees: results on standard output, mistakes on standard error."""

import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import RenderableType

EXIT_USER_ERROR = 2


def show(text: "RenderableType") -> None:
    """Print, with styles where the output is a terminal; long lines such as paths stay in one piece."""
    from rich.console import Console

    Console().print(text, soft_wrap=True, highlight=False, markup=False)


def fail(problems: Sequence[str]) -> NoReturn:
    """Print what is wrong, all of it, and exit; with KRONTIME_TRACEBACK set, the traceback too."""
    if os.environ.get("KRONTIME_TRACEBACK"):
        logging.getLogger(__name__).error("traceback asked for by KRONTIME_TRACEBACK", exc_info=True)
    lines = [f"krontime: {problems[0]}"] if len(problems) == 1 else ["krontime: problems found:"]
    if len(problems) > 1:
        lines += [f"  - {problem}" for problem in problems]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.exit(EXIT_USER_ERROR)
