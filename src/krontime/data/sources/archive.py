"""Data sets by name, wherever they are: in the folder of data files, inside aeon, or downloaded."""

from pathlib import Path
from typing import Any

from krontime.data.series import SeriesData
from krontime.data.sources.npz import NpzSource
from krontime.data.sources.ts import TsSource
from krontime.data.sources.ucr import UcrSource
from krontime.storage import expanded


class ArchiveSource:
    """`PATH.npz`, or `PATH_TRAIN.ts` with `PATH_TEST.ts`, or those two in the folder `PATH`; else `UcrSource`.

    Args:
        name: of the data set.
        path: where its files are, without what tells them apart, such as `data/ACSF1`; its last part is the name.
        downloads: where the archive's files are kept that had to be downloaded.
    """

    def __init__(self, name: str, path: str, downloads: str) -> None:
        self.name = name
        self.path = expanded(path)
        self.downloads = downloads

    def describe(self) -> dict[str, Any]:
        """Identity of the files, after downloading them where they are nowhere on this machine.

        Raises:
            ValueError: there is no such data set, or it cannot be downloaded.
        """
        return self._source().describe() | {"name": self.name}

    def load(self) -> SeriesData:
        """Read the files; raises `UserError` with all their problems."""
        return self._source().load()

    def _source(self) -> NpzSource | TsSource | UcrSource:
        if not isinstance(self.name, str) or not self.name or Path(self.name).name != self.name:
            raise ValueError(f"name={self.name!r}: expected the name of a data set, such as ACSF1")
        container = self.path.with_name(f"{self.path.name}.npz")
        if container.is_file():
            return NpzSource(str(container))
        for folder in (self.path.parent, self.path):
            train, test = (folder / f"{self.name}_{split}.ts" for split in ("TRAIN", "TEST"))
            if train.is_file() and test.is_file():
                return TsSource(str(train), str(test))
        return UcrSource(self.name, self.downloads)
