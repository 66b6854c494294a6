"""Where results are shown to the user: standard output."""

from rich.console import Console
from rich.text import Text


def show(text: Text | str) -> None:
    """Print, with styles where the output is a terminal; long lines such as paths stay in one piece."""
    Console().print(text, soft_wrap=True, highlight=False, markup=False)
