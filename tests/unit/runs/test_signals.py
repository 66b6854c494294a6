"""What a signal from outside does to a run, and when."""

import os
import signal

import pytest

from krontime.errors import Terminated
from krontime.runs.signals import ending_on_sigterm, holding_back


def test_a_sigterm_ends_the_run_but_not_what_is_held() -> None:
    with ending_on_sigterm() as came:
        with holding_back(came):
            os.kill(os.getpid(), signal.SIGTERM)
            is_written = True
        assert came.is_set()
        assert is_written
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
