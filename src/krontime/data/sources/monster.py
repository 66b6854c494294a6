"""Data sets of MONSTER, the Monash Scalable Time Series Evaluation Repository (Dempster et al. 2025, arXiv 2502.15122).

Each is a repository of the Hugging Face Hub with `NAME_X.npy (n, C, L)`, `NAME_y.npy (n,)` and, for each of five folds,
`test_indices_fold_K.txt`, the series that are tested on.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.assemble import flatten, labelled_data
from krontime.data.rounding import Rounding
from krontime.data.series import SeriesData, chunks
from krontime.data.sources.arrays import map_npy, read_npy
from krontime.data.sources.files import file_identity, library_of
from krontime.errors import Problems, UserError
from krontime.storage import expanded

OWNER = "monster-monash"
NUM_FOLDS = 5


class MonsterSource:
    """One data set of the repository, with the test split of one of its folds.

    Args:
        name: name in the repository, such as `AudioMNIST`.
        folder: where downloads are kept, as `FOLDER/NAME/NAME_X.npy` and so on.
        fold: which of the five folds is tested on, from 0.
    """

    def __init__(self, name: str, folder: str, fold: int = 0) -> None:
        self.name = name
        self.folder = expanded(folder)
        self.fold = fold

    def describe(self) -> dict[str, Any]:
        """Identity of the three files, after downloading those that are not on this machine.

        Raises:
            ValueError: the repository has no such data set or fold, or a file cannot be downloaded.
        """
        values, labels, test = self._files()
        return {
            "name": self.name,
            "kind": "monster",
            "fold": self.fold,
            "values": file_identity(values, "data.source.name"),
            "labels": file_identity(labels, "data.source.name"),
            "test": file_identity(test, "data.source.fold"),
        }

    def load(self) -> SeriesData:
        """Read the files into memory.

        Raises:
            UserError: names what is wrong with them.
        """
        return self.load_into(None)

    def load_into(self, scratch: Path | None, *, mixed_rates: bool = False) -> SeriesData:
        """Read the files; see `LargeSource`, and `flatten` for `scratch`. All series are of one rate.

        Raises:
            UserError: names what is wrong with them.
        """
        values_path, labels_path, test_path = self._files()
        try:
            values = read_npy(values_path) if scratch is None else map_npy(values_path)
            labels = np.asarray(read_npy(labels_path))
            tested = np.array(test_path.read_text(encoding="utf-8").split(), dtype=np.int64)
        except (OSError, ValueError) as error:
            raise UserError(f"{values_path.parent}: cannot be read ({error})") from error
        problems = []
        if values.ndim not in (2, 3) or values.dtype.kind not in "iuf":
            raise UserError(
                f"{values_path}: expected numbers of shape (series, channels, points), "
                f"found {values.dtype} of {values.shape}"
            )
        if labels.shape != values.shape[:1]:
            problems.append(f"{labels_path}: expected a label for each series, found {labels.shape}")
        if not len(tested) or ((tested < 0) | (tested >= len(values))).any():
            problems.append(f"{test_path}: expected positions from 0 to {len(values) - 1}")
        if problems:
            raise UserError(problems)
        is_test = np.zeros(len(values), bool)
        is_test[tested] = True
        rounding = Rounding()
        series = (np.atleast_2d(one) for chunk in chunks(values) for one in chunk)
        return labelled_data(
            flatten(series, scratch, rounding=rounding),
            labels,
            is_test,
            num_channels=values.shape[1] if values.ndim == 3 else 1,
            where=str(values_path.parent),
            rounding=rounding,
        )

    def _files(self) -> tuple[Path, Path, Path]:
        """The values, the labels and the positions of the test series, downloaded where they are not there."""
        problems = Problems()
        if not isinstance(self.name, str) or not self.name or Path(self.name).name != self.name:
            problems.add("name", self.name, "a name of MONSTER, such as AudioMNIST")
        if type(self.fold) is not int or not 0 <= self.fold < NUM_FOLDS:
            problems.add("fold", self.fold, f"a whole number from 0 to {NUM_FOLDS - 1}")
        problems.raise_value_error()
        return (
            self._file(f"{self.name}_X.npy"),
            self._file(f"{self.name}_y.npy", f"{self.name}_Y.npy"),  # both ways of writing it occur
            self._file(f"test_indices_fold_{self.fold}.txt"),
        )

    def _file(self, *names: str) -> Path:
        """The first of some files that is in the folder, or else in the repository."""
        folder = self.folder / self.name
        for name in names:
            if (folder / name).is_file():
                return folder / name
        library_of("monster", "huggingface_hub", needed_by="data=monster")
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each of its attempts is a warning, given twice
        for name in names:
            try:
                return Path(hf_hub_download(f"{OWNER}/{self.name}", name, repo_type="dataset", local_dir=folder))
            except Exception as error:  # of many kinds: no such data set, no connection, no room
                failure = error
                if not isinstance(error, EntryNotFoundError) or isinstance(error, LocalEntryNotFoundError):
                    break
        reason = str(failure).strip().splitlines()[0] if str(failure).strip() else ""
        raise ValueError(
            f"name={self.name!r}: {names[0]} is not in {folder} and could not be downloaded from "
            f"https://huggingface.co/datasets/{OWNER}/{self.name} ({type(failure).__name__}: {reason}). Expected the "
            "name of a MONSTER data set, such as AudioMNIST, and the internet, or the files put there by hand"
        ) from failure
