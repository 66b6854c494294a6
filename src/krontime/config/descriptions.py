"""What the keys of a command mean, and what they may be, as the schema says it; imports nothing heavier than that."""

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from krontime.config.sections import Audit, Inspect, Plan, Train, leaf_fields

SCHEMAS: dict[str, type[BaseModel]] = {
    "train": Train,
    "tune": Train,
    "overhead": Train,
    "data": Inspect,
    "audit": Audit,
    "plan": Plan,
}
"""Schemas by command; the others have but a few keys of their own, which their configs explain."""

_BOUNDS = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))


def descriptions(command: str) -> dict[str, str]:
    """By dotted key, what a command's schema says of it and, after a semicolon, between which bounds it lies."""
    fields = leaf_fields(SCHEMAS[command]) if command in SCHEMAS else ()
    return {
        key: "; ".join(filter(None, (field.description, _bounds(field)))) for key, field in fields if field.description
    }


def _bounds(field: FieldInfo) -> str:
    """The bounds of a number; that it is not negative, and what a seed fits into, go without saying."""
    bounds = {
        word: value
        for constraint in field.metadata
        for bound, word in _BOUNDS
        if (value := getattr(constraint, bound, None)) is not None
    }
    if bounds.get("below") == 2**32:
        del bounds["below"]
    if bounds == {"at least": 0}:
        return ""
    return " and ".join(f"{word} {value:g}" for word, value in bounds.items())
