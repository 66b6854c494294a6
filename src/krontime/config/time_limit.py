"""`trainer.max_time`, in the forms that Lightning takes."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any


def limit_seconds(value: Any) -> float | None:
    """A limit on time in seconds; None for None.

    Args:
        value: `DD:HH:MM:SS`, or the arguments of a `timedelta` by name.

    Raises:
        ValueError: it is neither, or not above 0.
    """
    if value is None:
        return None
    limit = timedelta(0)
    if isinstance(value, Mapping):
        try:
            limit = timedelta(**value)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"expected days, hours, minutes and seconds as numbers ({error})") from error
    elif isinstance(value, str) and (parts := re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", value.strip())):
        days, hours, minutes, seconds = map(int, parts.groups())
        limit = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    else:
        raise ValueError("expected days:hours:minutes:seconds in quotes, such as '\"00:00:30:00\"'")
    if limit <= timedelta(0):
        raise ValueError("expected more than no time")
    return limit.total_seconds()
