"""From a plain config to its data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from krontime.training import build
from krontime.data.cache import load_cached
from krontime.data.prepare import Prepare
from krontime.data.series import SeriesData


def load_data(config: Mapping[str, Any]) -> SeriesData:
    """The data set of a plain config, from `paths.cache`, or parsed into it.

    Raises:
        UserError: it cannot be read, or the cache cannot be written.
    """
    options = config["data"]
    cache = Path(config["paths"]["cache"]).expanduser()
    return load_cached(build.source(options), Prepare(**options["prepare"]), cache)
