"""Where results are shown to the user: standard output."""

from rich.console import Console, RenderableType


def show(text: RenderableType) -> None:
    """Print, with styles where the output is a terminal; long lines such as paths stay in one piece."""
    Console().print(text, soft_wrap=True, highlight=False, markup=False)
