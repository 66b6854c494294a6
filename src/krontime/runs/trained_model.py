"""Offers a trained model to programs: `krontime.load(PATH)` returns one from a run folder or a bundle."""

import io
import tempfile
import zipfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.in_memory import unlabelled_series
from krontime.data.mismatch import length_problems, rate_problem
from krontime.data.prepare import Prepare
from krontime.data.series import SeriesData
from krontime.metrics import decide
from krontime.runs import bundle
from krontime.runs.decisions import Rules
from krontime.runs.load import LoadedRun
from krontime.runs.record import Record
from krontime.storage import RECORD, expanded
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
        folder = expanded(path)
        return cls(bundle.load(folder), Record.read(folder / RECORD))

    @property
    def classes_(self) -> np.ndarray:
        """Class names `(K,)`, in the order of the columns of `predict_proba`."""
        return np.array(self.run.spec.class_names)

    def predict_proba(self, X: Any, allow: Collection[str] = (), sampling_rate_hz: float | None = None) -> np.ndarray:
        """Class probabilities `(n, K)`, float32.

        Args:
            X: an array `(n, points)` or `(n, channels, points)`, or a list of arrays `(points,)` or
                `(channels, points)`, no shorter and no longer than the training series were; NaN is a missing value.
                Numbers are raw, as those of a new `.npy` file of `krontime predict`: `data.source.missing_value` and
                `scale` of the run count.
            allow: `length` for shorter series, and for longer ones, which are cut then.
            sampling_rate_hz: points per second of X, which a run that resamples needs; None for those that its source
                was told, if any.

        Raises:
            ValueError: the series can't be used, or have other channels, another rate, fewer or more points than any in
                training.
        """
        rate = self.run.source_rate_hz if sampling_rate_hz is None else sampling_rate_hz
        return self.probabilities(unlabelled_series(X, self.run.spec.class_names, self.run.decoding, rate), allow)

    def predict(self, X: Any, allow: Collection[str] = (), sampling_rate_hz: float | None = None) -> np.ndarray:
        """The class `(n,)` of each series, by `decide`; arguments and errors of `predict_proba`."""
        return self.classes_[decide(self.predict_proba(X, allow, sampling_rate_hz), self.prior_)]

    def predict_set(self, X: Any, coverage: float = 0.9, sampling_rate_hz: float | None = None) -> np.ndarray:
        """Whether each class is in the conformal set of each series, bool `(n, K)`; see `ConformalSets`.

        Args:
            X, sampling_rate_hz: see `predict_proba`.
            coverage: fraction of series like those of training whose set holds the true class.

        Raises:
            ValueError: too few series were held out for such a coverage, or see `predict_proba`.
        """
        rules = Rules.of(coverage, {}, self.run.held_out)
        assert rules.sets is not None
        return rules.sets.sets(self.predict_proba(X, sampling_rate_hz=sampling_rate_hz))

    @property
    def prior_(self) -> np.ndarray:
        """`(K,)`, by which classes are decided; see `decide`."""
        return self.run.module.prior.cpu().numpy()

    def probabilities(self, series: SeriesData, allow: Collection[str] = ()) -> np.ndarray:
        """Class probabilities `(n, K)` of series that are not prepared yet; see `predict_proba`."""
        data = self.prepared(series, allow)
        return Scorer.of(self.run.config).probabilities(self.run.module, data, np.arange(len(data))).numpy()

    def prepared(self, series: SeriesData, allow: Collection[str] = ()) -> SeriesData:
        """Prepare new series as those of training were; see `predict_proba` for what is refused."""
        check_allow(allow)
        config, spec = self.run.config, self.run.spec
        prepare = Prepare(**config["data"]["prepare"])
        data = prepare.apply(series)
        if data.num_channels != spec.num_channels:
            raise ValueError(f"X has {data.num_channels} channels: expected {spec.num_channels}, as in training")
        if problems := "length" not in allow and length_problems(data, spec, ["X"], typed="allow=['length']"):
            raise ValueError(f"X: {'; '.join(problems)}")
        if problem := rate_problem(data, spec, ["X"] * len(data), ways=""):
            raise ValueError(f"X: {problem}")
        if (data.lengths > spec.length).any():
            data = Prepare(crop_length=spec.length, crop_from=prepare.crop_from).apply(data)
        if empty := np.flatnonzero(~data.observed()).tolist():
            raise ValueError(f"X: all values of series {', '.join(map(str, empty[:5]))} are missing")
        # With a mask wherever training had one, so that the same series give the same numbers to the last bit.
        return replace(data, has_missing=data.has_missing or self.run.masked)

    def __getstate__(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder, io.BytesIO() as packed:
            written = Path(folder) / "bundle"
            bundle.write_bundle(self.run, self.record.published(), "", written)
            with zipfile.ZipFile(packed, "w") as archive:
                for path in sorted(written.iterdir()):
                    archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())  # without the time, always alike
            return {"bundle": packed.getvalue()}

    def __setstate__(self, state: dict[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(io.BytesIO(state["bundle"])) as archive:
                archive.extractall(folder)
            loaded = self.load(folder)
        self.__init__(loaded.run, loaded.record)  # type: ignore[misc]


def check_allow(allow: object) -> None:
    """Refuse what stands for nothing that new series may differ in.

    Raises:
        ValueError: it is no list of `length`, nor that word.
    """
    if allow != "length" and (not isinstance(allow, Collection) or any(word != "length" for word in allow)):
        raise ValueError(f"allow={allow!r}: expected a list of length, or nothing in it")
