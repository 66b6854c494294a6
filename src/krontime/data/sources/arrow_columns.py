"""Columns of Arrow tables from anyone, as the arrays that are read of them, under names without white space."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from krontime.data.sources.columns import column_names
from krontime.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SECONDS = 9e9
"""Nanoseconds of more do not fit in 64 bits."""


def stripped(schema: "pa.Schema", batches: "Iterable[pa.RecordBatch]") -> "tuple[pa.Schema, Iterable[pa.RecordBatch]]":
    """Columns and rows under names without white space around them, see `column_names`.

    Raises:
        UserError: two columns have one name.
    """
    import pyarrow as pa

    names = list(column_names(schema.names))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"column {twice[0]!r} is there {names.count(twice[0])} times: expected a name for each column")
    renamed = pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])
    return renamed, (pa.RecordBatch.from_arrays(batch.columns, schema=renamed) for batch in batches)


def is_number(kind: "pa.DataType") -> bool:
    """Whether a column of a type can hold values."""
    import pyarrow as pa

    return any(
        test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    )


def as_text(column: "pa.Array") -> "pa.Array":
    """Text without white space around it, null where there is none, and where a number is NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return pc.utf8_trim_whitespace(pc.cast(column, pa.string()))


def is_exact(kind: "pa.DataType") -> bool:
    """Whether float32 holds whatever a column of a type may."""
    return str(kind) in ("float", "halffloat", "int16", "int8", "uint16", "uint8", "bool", "null")


def as_numbers(column: "pa.Array", *, exact: bool = False) -> np.ndarray:
    """Float32, or float64 where that is asked for, NaN where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.float64() if exact else pa.float32()
    return pc.cast(column, kind, safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)


def nanoseconds(column: "pa.Array", name: str) -> np.ndarray:
    """int64 nanoseconds of time stamps, or of numbers in seconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        raise UserError(f"column {name!r}: {column.null_count:,} rows of a block have no time; expected one in each")
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("ns", tz=column.type.tz), safe=False)
        return pc.cast(column, pa.int64()).to_numpy(zero_copy_only=False)
    if pa.types.is_temporal(column.type):
        return pc.cast(pc.cast(column, pa.timestamp("ns"), safe=False), pa.int64()).to_numpy(zero_copy_only=False)
    seconds = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if (strange := np.flatnonzero(~(np.abs(seconds) < MAX_SECONDS))).size:
        raise UserError(f"column {name!r}: {seconds[strange[0]]:g} is no time: expected seconds, not parts of them")
    return np.rint(seconds * 1e9).astype(np.int64)
