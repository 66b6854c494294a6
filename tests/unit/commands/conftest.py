"""Commands are tested without their plots; one test of `tables` has them drawn."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def undrawn(quick_plots: None) -> None:
    """What is drawn takes longest, and is tested in `tests/unit/reports` and `tests/unit/runs/plot`."""
