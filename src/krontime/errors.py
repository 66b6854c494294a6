"""The error class for mistakes a user can fix, a collector that reports them all at once, and the end by a signal."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """What the user gave cannot work; the message says which key, which value and what would be right.

    The command line prints the message alone (no traceback) and exits with code 2.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class Problems:
    """Collects problems so that a user sees all of them in one message.

    >>> problems = Problems()
    >>> problems.add("data.batch_size", 0, "an integer of at least 1")
    >>> problems.lines
    ['data.batch_size=0: expected an integer of at least 1']
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, key: str, value: object, expected: str) -> None:
        """Note that `key` holds `value` where `expected` (a phrase) would be right."""
        self.lines.append(f"{key}={value!r}: expected {expected}")

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note the problems of a `UserError` that the block raises, instead of stopping at them."""
        try:
            yield
        except UserError as error:
            self.lines += error.problems

    def raise_value_error(self) -> None:
        """Raise one `ValueError` with every problem found so far; for what knows arguments, and not config keys."""
        if self.lines:
            raise ValueError("\n".join(self.lines))

    def raise_if_any(self) -> None:
        """Raise one `UserError` with every problem found so far."""
        if self.lines:
            raise UserError(self.lines)


class Terminated(SystemExit):
    """A signal ended the process: a scheduler's SIGTERM, or SIGHUP where the terminal is gone; exit code 143 or 129.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        self.number = signal.Signals(number)
        super().__init__(128 + number)


def ending_signals() -> list[signal.Signals]:
    """Return the signals that end a run from outside; SIGHUP is none where it is ignored, as by `nohup`."""
    numbers = [signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        numbers.append(hang_up)
    return numbers
