"""What a signal from outside does to a run, and when."""

import os
import signal
from collections.abc import Iterator

import pytest

from krontime.errors import Terminated
from krontime.runs.signals import ending_on_signals, holding_back


@pytest.fixture
def hang_up() -> Iterator[None]:
    """A terminal's SIGHUP does what it does by default, whatever the tests were started by."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_run_but_not_what_is_held(number: int, code: int) -> None:
    with ending_on_signals() as came:
        with holding_back(came):
            os.kill(os.getpid(), number)
            is_written = True
        assert came == [number]
        assert is_written
        with pytest.raises(Terminated) as ended:
            os.kill(os.getpid(), number)
        assert ended.value.code == code
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.usefixtures("hang_up")
def test_nohup_is_left_as_it_is() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ending_on_signals() as came, holding_back(came):
        os.kill(os.getpid(), signal.SIGHUP)
    assert came == []
