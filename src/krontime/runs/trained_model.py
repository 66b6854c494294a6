"""A trained model for programs: `krontime.load(PATH)` gives one from a run folder or a bundle."""

import io
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.in_memory import unlabelled_series
from krontime.data.prepare import Prepare
from krontime.data.series import SeriesData
from krontime.metrics import decide
from krontime.runs import bundle
from krontime.runs.decisions import Rules
from krontime.runs.load import LoadedRun
from krontime.runs.record import Record
from krontime.storage import RECORD
from krontime.training.predict import Scorer


class TrainedModel:
    """The selected model of a finished run; it can be pickled, as the bytes of its bundle.

    Args:
        run: what the run left.
        record: its record.

    Attributes:
        classes_: `(K,)` class names, in the order of the columns of `predict_proba`.
    """

    def __init__(self, run: LoadedRun, record: Record) -> None:
        self.run = run
        self.record = record

    @classmethod
    def load(cls, path: str | Path) -> "TrainedModel":
        """Read a run folder or a bundle.

        Raises:
            UserError: a `ValueError`: the folder is neither, or is damaged.
        """
        folder = Path(path).expanduser()
        return cls(bundle.load(folder), Record.read(folder / RECORD))

    @property
    def classes_(self) -> np.ndarray:
        """See the class."""
        return np.array(self.run.spec.class_names)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities `(n, K)`, float32.

        Args:
            X: an array `(n, points)` or `(n, channels, points)`, or a list of arrays `(points,)` or
                `(channels, points)` of any lengths up to that of the training series; NaN is a missing value.

        Raises:
            ValueError: the series can't be used, or have other channels or more points than in training.
        """
        return self.probabilities(unlabelled_series(X, self.run.spec.class_names))

    def predict(self, X: Any) -> np.ndarray:
        """The class `(n,)` of each series, by `decide`; arguments and errors of `predict_proba`."""
        return self.classes_[decide(self.predict_proba(X), self.prior_)]

    def predict_set(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Whether each class is in the conformal set of each series, bool `(n, K)`; see `ConformalSets`.

        Args:
            X: see `predict_proba`.
            coverage: fraction of series like those of training whose set holds the true class.

        Raises:
            ValueError: too few series were held out for such a coverage, or see `predict_proba`.
        """
        rules = Rules.of(coverage, {}, self.run.held_out)
        assert rules.sets is not None
        return rules.sets.sets(self.predict_proba(X))

    @property
    def prior_(self) -> np.ndarray:
        """`(K,)`, by which classes are decided; see `decide`."""
        return self.run.module.prior.cpu().numpy()

    def probabilities(self, series: SeriesData) -> np.ndarray:
        """Class probabilities `(n, K)` of series that are not prepared yet; see `predict_proba`."""
        data = self.prepared(series)
        return Scorer.of(self.run.config).probabilities(self.run.module, data, np.arange(len(data))).numpy()

    def prepared(self, series: SeriesData) -> SeriesData:
        """New series as those of training were prepared; see `predict_proba` for what is refused."""
        config, spec = self.run.config, self.run.spec
        data = Prepare(**config["data"]["prepare"]).apply(series)
        if data.num_channels != spec.num_channels:
            raise ValueError(f"X has {data.num_channels} channels: expected {spec.num_channels}, as in training")
        if (longest := int(data.lengths.max())) > spec.length:
            raise ValueError(f"X has a series of {longest} points: expected at most {spec.length}, as in training")
        # With a mask wherever training had one, so that the same series give the same numbers to the last bit.
        return replace(data, has_missing=data.has_missing or self.run.masked)

    def __getstate__(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder, io.BytesIO() as packed:
            written = Path(folder) / "bundle"
            bundle.write_bundle(self.run, self.record.published(), "", written)
            with zipfile.ZipFile(packed, "w") as archive:
                for path in sorted(written.iterdir()):
                    archive.write(path, path.name)
            return {"bundle": packed.getvalue()}

    def __setstate__(self, state: dict[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(io.BytesIO(state["bundle"])) as archive:
                archive.extractall(folder)
            loaded = self.load(folder)
        self.__init__(loaded.run, loaded.record)  # type: ignore[misc]
