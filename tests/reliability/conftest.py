"""The kill matrix's way of running something in a child, for tests that harm a process or its files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def undrawn(quick_plots: None) -> None:
    """What is drawn takes longest, and is not what is harmed here; the kill matrix has it."""


@pytest.fixture(scope="session")
def matrix(environment: None) -> Iterator[ModuleType]:
    """`kill_matrix.py` as a module; what lies beside it can be imported, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        import kill_matrix

        yield kill_matrix


@pytest.fixture
def in_child(matrix: ModuleType) -> Callable[[Callable[[], Any]], tuple[int, str]]:
    """`in_child(task)` gives the exit status of a forked child that ran it, and what it wrote."""

    def in_child(task: Callable[[], Any]) -> tuple[int, str]:
        status, text, _ = matrix.attempt(task, None, 0)
        return status, text

    return in_child
