"""Prices over time, with classes from what follows: no class, value or window of one period reaches into another.

A table has a row for each asset and time. The class at a row says how the price changes over the next `horizon` rows:
`down`, `flat` or `up`. Every asset is cut at the same times into a period to train on, one to validate on and one to
test on. The last `horizon` rows of a period have no class, since what follows them is in the next one, and the first
`embargo` rows of the next are left out, since they move with what came before.

Shape letters: L rows of a period.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from krontime.data.recordings import Recording
from krontime.data.series import SeriesData
from krontime.data.sources.files import file_identity
from krontime.data.sources.long_table import spans_of
from krontime.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CLASSES = ("down", "flat", "up")


class PricesSource:
    """Reads a table of prices, CSV or Parquet; each period of an asset is a recording.

    The channels are the logarithm of each price over the one before, and further columns as they are.

    Args:
        path: the table.
        validation_from: time from which rows validate, as the table writes it.
        test_from: time from which rows are tested on; None for no test.
        time: column of the time.
        asset: column of the asset; None for one asset.
        price: column of the price.
        channels: columns of further values.
        horizon: rows over which the price change gives the class.
        threshold: change below which the class is `flat`, as a fraction of the price; 0 for `down` and `up` alone.
        embargo: rows at the start of the validation and test periods that are left out; None for `horizon`.
    """

    group_name = "period"
    by_time = True

    def __init__(
        self,
        path: str,
        validation_from: str,
        test_from: str | None = None,
        time: str = "time",
        asset: str | None = "asset",
        price: str = "close",
        channels: list[str] | None = None,
        horizon: int = 5,
        threshold: float = 0.0,
        embargo: int | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        self.validation_from = str(validation_from)
        self.test_from = None if test_from is None else str(test_from)
        self.columns = {"time": time, "asset": asset, "price": price}
        self.channels = [str(name) for name in channels or ()]
        self.horizon = horizon
        self.threshold = threshold
        self.embargo = horizon if embargo is None else embargo
        problems = [] if horizon >= 1 else [f"horizon={horizon}: expected at least 1"]
        problems += [] if 0 <= threshold < 1 else [f"threshold={threshold}: expected a fraction from 0 to below 1"]
        problems += [] if self.embargo >= 0 else [f"embargo={embargo}: expected at least 0"]
        if problems:
            raise ValueError("\n".join(problems))

    def describe(self) -> dict[str, Any]:
        """Identity of the table and what is made of it; raises `UserError` where it is missing."""
        options = {name: value for name, value in self.__dict__.items() if name != "path"}
        return {
            "name": self.path.stem,
            "kind": "prices",
            "file": file_identity(self.path, "data.path"),
            **options,
        }

    def test_series(self, data: SeriesData) -> None:
        """Those of the test period."""

    def stream(self, scratch: Path) -> Iterator[Recording]:
        """Yield each period of each asset.

        Raises:
            UserError: the table can't be used.
        """
        table, times, borders = self._read()
        asset = self.columns["asset"]
        names = np.full(len(table), self.path.stem) if asset is None else table[asset].astype(str).to_numpy()
        for name in dict.fromkeys(names.tolist()):
            rows = np.flatnonzero(names == name)
            rows = rows[np.argsort(times[rows], kind="stable")]
            if (np.diff(times[rows]) == 0).any():
                raise UserError(f"{self.path}: {name} has two rows of one time; expected data.source.asset=COLUMN")
            values = self._values(table, rows, name)
            price = table[self.columns["price"]].to_numpy(np.float64)[rows]
            yield from self._periods(name, times[rows], values, price, borders)

    def _read(self) -> "tuple[pd.DataFrame, np.ndarray, list[np.datetime64]]":
        """Return the table, its times, and those at which periods begin."""
        import pandas as pd

        try:
            parquet = self.path.suffix.lower() == ".parquet"
            # else a mark at the end of each row makes names of its first fields, and shifts the others
            table = pd.read_parquet(self.path) if parquet else pd.read_csv(self.path, index_col=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be read as a table ({error})") from error
        wanted = {f"data.source.{key}": name for key, name in self.columns.items() if name is not None}
        wanted |= {f"data.source.channels[{i}]": name for i, name in enumerate(self.channels)}
        if problems := [
            f"{key}={name!r}: there is no such column; expected one of {', '.join(map(str, table.columns[:20]))}"
            for key, name in wanted.items()
            if name not in table.columns
        ]:
            raise UserError(problems)
        asset = self.columns["asset"]
        if asset is not None and (missing := int(table[asset].isna().sum())):
            raise UserError(f"{self.path}: column {asset!r}: {missing:,} rows have no asset; expected one in each")
        try:
            times, borders = self._times(table[self.columns["time"]])
        except (ValueError, TypeError) as error:
            reason = str(error).partition(". You")[0]  # less pandas' advice, which is for programs
            raise UserError(f"{self.path}: a time can't be read ({reason}); expected ISO 8601") from error
        if not (times.min() < borders[0] <= borders[-1] <= times.max() and len(set(borders)) == len(borders)):
            raise UserError(
                f"data.source.validation_from={self.validation_from!r}, test_from={self.test_from!r}: expected times "
                f"that rise, between {times.min()} and {times.max()}"
            )
        return table, times, borders

    def _times(self, column: "pd.Series") -> tuple[np.ndarray, list[np.datetime64]]:
        """Return the times of rows, and those at which periods begin, which are in the zone of the rows.

        Raises:
            ValueError: one is not in ISO 8601, or is a number, which does not say what it counts.
        """
        import pandas as pd

        if pd.api.types.is_numeric_dtype(column):
            raise ValueError(f"{column.iloc[0]} is a number")
        times = pd.to_datetime(column, format="ISO8601")
        borders = [pd.Timestamp(text) for text in (self.validation_from, self.test_from) if text is not None]
        if (zone := times.dt.tz) is not None:
            borders = [border if border.tzinfo else border.tz_localize(zone) for border in borders]
        return times.to_numpy("datetime64[ns]"), [border.to_datetime64() for border in borders]

    def _values(self, table: "pd.DataFrame", rows: np.ndarray, name: str) -> np.ndarray:
        """Return the channels `(C, L)` of an asset."""
        price = table[self.columns["price"]].to_numpy(np.float64)[rows]
        if not (np.isfinite(price) & (price > 0)).all():
            raise UserError(f"{self.path}: {name} has prices that are missing or not above 0")
        change = np.diff(np.log(price), prepend=np.log(price[0]))
        return np.stack([change, *(table[column].to_numpy(np.float64)[rows] for column in self.channels)])

    def _periods(
        self, name: str, times: np.ndarray, values: np.ndarray, price: np.ndarray, borders: list[np.datetime64]
    ) -> Iterator[Recording]:
        """Cut an asset into its periods, each with classes of its own rows alone."""
        parts: list[Literal["train", "validation", "test"]] = ["train", "validation", "test"]
        starts = [0, *np.searchsorted(times, np.array(borders)).tolist()]
        stops = [*starts[1:], len(times)]
        for part, start, stop in zip(parts, starts, stops, strict=False):
            first = start if part == "train" else start + self.embargo
            if stop - first <= self.horizon:
                continue  # the asset is not traded then
            mine = price[first:stop]
            codes = np.full(len(mine), -1)
            change = mine[self.horizon :] / mine[: -self.horizon] - 1
            codes[: -self.horizon] = np.where(np.abs(change) < self.threshold, 1, np.where(change > 0, 2, 0))
            yield Recording(
                name=f"{name} {part}",
                values=values[:, first:stop],
                spans=spans_of(codes, CLASSES),
                part=part,
                channels=("change", *self.channels),
            )
