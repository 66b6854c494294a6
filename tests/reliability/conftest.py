"""The kill matrix's way of running something in a child, for tests that harm a process or its files."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def undrawn(quick_plots: None) -> None:
    """What is drawn takes longest, and is not what is harmed here; the kill matrix has it."""


@pytest.fixture(scope="session")
def matrix(environment: None) -> ModuleType:
    """`kill_matrix.py` as a module."""
    path = Path(__file__).with_name("kill_matrix.py")
    spec = importlib.util.spec_from_file_location("kill_matrix", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_matrix"] = module  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def in_child(matrix: ModuleType) -> Callable[[Callable[[], Any]], tuple[int, str]]:
    """`in_child(task)` gives the exit status of a forked child that ran it, and what it wrote."""

    def in_child(task: Callable[[], Any]) -> tuple[int, str]:
        status, text, _ = matrix.attempt(task, None, 0)
        return status, text

    return in_child
