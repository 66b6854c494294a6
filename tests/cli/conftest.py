"""No test of commands looks at a picture but one, which says so."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def undrawn(quick_plots: None) -> None:
    """Whole runs are tested here; their plots are in `tests/unit/runs/plot`."""
