"""Standard streams that never raise.

What becomes of a run never hangs on what can be printed: a stream that is gone, full or too narrow in its encoding
loses text and raises nothing.
"""

import atexit
import errno
import io
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar


class SafeStream:
    """A text stream that loses what it can't write instead of raising.

    Characters that its encoding lacks are written as escapes.

    Attributes:
        lost: the first error that was met, if any.
        written_s: when something was last written to any of these streams, on the monotonic clock.
    """

    written_s: ClassVar[float] = 0.0

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # of a copy that has none yet
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written; the length of the text."""
        SafeStream.written_s = time.monotonic()
        try:
            with self._losing():
                self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            with self._losing():
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._losing():
            self._stream.flush()

    def settle(self) -> None:
        """Flush for the last time; what is held back then goes nowhere, or Python would complain at its end."""
        self.flush()
        if self.lost is not None:
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    @contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.lost = self.lost or error
        except ValueError as error:  # the stream was closed
            if isinstance(error, UnicodeError):
                raise


@contextmanager
def safe_streams(*, is_last: bool) -> Iterator[None]:
    """Within this, nothing that is printed raises, by whichever library.

    Args:
        is_last: whether the process ends afterwards; the streams then stay as they are up to its very end.
    """
    before = sys.stdout, sys.stderr
    output, errors = (safe(stream) for stream in before)
    sys.stdout, sys.stderr = output, errors
    if is_last:
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # closed: a file of ours would get its number
            pass
        os.close(number)
        atexit.register(_settle, output, errors)
    try:
        yield
    finally:
        if not is_last:
            sys.stdout, sys.stderr = before


class _Nowhere(io.TextIOBase):
    """Takes the place of a stream that was closed by who started the process."""

    def write(self, text: str) -> int:
        return len(text)


def safe(stream: Any) -> SafeStream:
    """A stream that raises nothing, from one that may; None is one that was closed."""
    return stream if isinstance(stream, SafeStream) else SafeStream(_Nowhere() if stream is None else stream)


def _settle(output: SafeStream, errors: SafeStream) -> None:
    """At the end of the process; a reader that has seen enough is no news, any other loss is."""
    output.settle()
    if output.lost is not None and output.lost.errno not in (errno.EPIPE, errno.EIO):
        errors.write(f"krontime: standard output can't be written ({output.lost.strerror}); its text is lost\n")
    errors.settle()
