"""`KronTimeClassifier`: the models of `krontime train` as an estimator of aeon and scikit-learn."""

import contextlib
import random
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from aeon.classification.base import BaseClassifier
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import check_random_state

from krontime.config import resolve, targets
from krontime.config.files import config_dir
from krontime.config.overrides import explained
from krontime.config.schema import check_train
from krontime.console import silent
from krontime.data.assemble import label_texts
from krontime.data.in_memory import labelled_series, refuse_masked_labels, unmasked
from krontime.data.series import SeriesData
from krontime.errors import UserError
from krontime.metrics import decide
from krontime.runs.run import train_in
from krontime.runs.trained_model import TrainedModel, check_allow

_ONE_AT_A_TIME = threading.Lock()
"""Held while a thread trains: Hydra and the generators of random numbers are shared by all of them."""


class KronTimeClassifier(BaseClassifier):
    """Train a model as `krontime train` does, on series in memory, and classify with it.

    The same config and seed give the same weights and probabilities as the command line, to the last bit. Series may
    have several channels, unequal lengths and missing values (NaN). A part of the training series is set apart for
    validation, as `data.validation` says; there is no test split.

    Args:
        model: name of a config of `configs/model`, such as `krontime`, `patchtst` or `tcn`.
        options: further config keys with their values, as on the command line:
            `{"trainer.max_epochs": 5, "model.depth": 3}`.
        cv: None for one run; a number of folds for as many runs, each with another fold for validation, whose
            probabilities are averaged.
        random_state: the run's seed; None for 0. A `RandomState` gives another one for each fit.
        verbose: whether to show progress and scores.
        allow: what new series may differ in from those of training: `length` for shorter ones, and for longer ones,
            which are cut then.
        sampling_rate_hz: points per second of the series of `fit` and of new ones, which `data.prepare.resample_hz`
            needs; None where it is not known.

    Attributes:
        classes_: `(K,)` classes, sorted.
        models_: the trained model of each run.

    Examples:
        >>> from krontime import KronTimeClassifier  # doctest: +SKIP
        >>> KronTimeClassifier(random_state=1).fit(X, y).predict_proba(X_new)  # doctest: +SKIP
    """

    _tags = {  # noqa: RUF012  # aeon's way to state capabilities
        "capability:multivariate": True,
        "capability:unequal_length": True,
        "capability:missing_values": True,
        "X_inner_type": ["np-list", "numpy3D"],
        "algorithm_type": "deeplearning",
        "non_deterministic": False,
        "cant_pickle": False,
    }

    def __init__(
        self,
        model: str = "krontime",
        options: Mapping[str, Any] | None = None,
        cv: int | None = None,
        random_state: "int | np.random.RandomState | None" = None,
        verbose: bool = False,
        allow: Sequence[str] = (),
        sampling_rate_hz: float | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.cv = cv
        self.random_state = random_state
        self.verbose = verbose
        self.allow = allow
        self.sampling_rate_hz = sampling_rate_hz
        super().__init__()

    def _preprocess_collection(self, X: Any, store_metadata: bool = True) -> Any:
        """Take what scikit-learn calls array-like beside aeon's own types."""
        is_first = store_metadata and not self.metadata_
        self._check_names(X, is_first)
        X = _collection(X)
        if is_first:
            self.n_features_in_ = X.shape[-1] if not isinstance(X, list) else max(len(np.atleast_2d(x)[0]) for x in X)
        return super()._preprocess_collection(X, store_metadata)

    def _check_names(self, X: Any, is_first: bool) -> None:
        """Keep the names of a table's columns, or compare them with those of the fit, as scikit-learn does.

        Raises:
            ValueError: the columns have other names, or another order.
        """
        names = X.columns.to_numpy() if isinstance(X, pd.DataFrame) else None
        if names is not None and not all(isinstance(name, str) for name in names):
            names = None
        if is_first:
            self.__dict__.pop("feature_names_in_", None)
            if names is not None:
                self.feature_names_in_ = names
            return
        fitted = getattr(self, "feature_names_in_", None)
        if names is not None and fitted is not None and not np.array_equal(names, fitted):
            how = "must be in the same order as they were" if sorted(names) == sorted(fitted) else "should match those"
            raise ValueError(f"Feature names {how} in fit, as {', '.join(fitted[:5])}: X has {', '.join(names[:5])}")

    def _check_y(self, y: Any, n_cases: int, *args: Any, **kwargs: Any) -> np.ndarray:
        """Take any 1-D array-like of classes."""
        if y is None:
            raise ValueError("y should be a 1d array: it requires y to be passed, but the target y is None")
        refuse_masked_labels(y)
        if np.any(pd.isna(np.asarray(y, dtype=object))):
            raise ValueError("y contains NaN or None: expected a class for each series")
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected", DataConversionWarning, stacklevel=3
            )
            labels = labels.ravel()
        if labels.dtype == object:
            labels = np.array(labels.tolist())  # whole numbers stay such
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise ValueError("y contains NaN or infinity: expected a class for each series")
        if labels.dtype.kind == "f" and (labels != np.floor(labels)).any():
            raise ValueError("Unknown label type: continuous; expected classes as text or whole numbers")
        if len(np.unique(labels)) < 2:
            raise ValueError(f"y holds 1 class alone: expected at least two classes in {len(labels)} series")
        checked: np.ndarray = super()._check_y(labels, n_cases, *args, **kwargs)
        return checked

    def _fit(self, X: Any, y: np.ndarray) -> "KronTimeClassifier":
        check_allow(self.allow)
        data, seed = labelled_series(X, y, self.sampling_rate_hz), _seed(self.random_state)
        names = label_texts(self.classes_).tolist()
        if len(set(names)) < len(names):
            alike = [label for label, name in zip(self.classes_.tolist(), names, strict=True) if names.count(name) > 1]
            raise ValueError(f"y holds {alike[:5]}, which are one class: expected one way of writing it")
        folds: list[dict[str, Any]] = [{}]
        if self.cv is not None:
            if not isinstance(self.cv, Integral) or self.cv < 2:
                raise ValueError(f"cv={self.cv!r}: expected None, or a number of folds of at least 2")
            method = {"data.validation.method": "kfold", "data.validation.num_folds": int(self.cv)}
            folds = [{**method, "data.validation.fold": fold} for fold in range(self.cv)]
        self.models_ = [self._train(data, {"seed": seed, **fold}) for fold in folds]
        texts = self.models_[0].classes_.tolist()
        named = {text: position for position, text in enumerate(texts)}
        self._columns = [named[name] for name in names]
        return self

    def _predict_proba(self, X: Any) -> np.ndarray:
        with silent(not self.verbose):
            each = [model.predict_proba(X, self.allow, self.sampling_rate_hz) for model in self.models_]
            probability = np.mean(each, axis=0)
        return probability[:, self._columns]

    def _predict(self, X: Any) -> np.ndarray:
        prior = np.mean([model.prior_ for model in self.models_], axis=0)[self._columns]
        return np.asarray(self.classes_)[decide(self._predict_proba(X), prior)]

    def _train(self, data: SeriesData, run: Mapping[str, Any]) -> TrainedModel:
        """One run, in a folder of its own that is gone afterwards; the program's random numbers go on as before."""
        with _ONE_AT_A_TIME, _random_numbers_kept(), tempfile.TemporaryDirectory() as folder, silent(not self.verbose):
            run_dir = Path(folder) / "run"
            train_in(self._config(run, folder), run_dir, data)
            return TrainedModel.load(run_dir)

    def _config(self, run: Mapping[str, Any], folder: str) -> dict[str, Any]:
        """The config of `krontime train` with these options, checked.

        Args:
            run: config keys with their values that set one run apart from others, such as its fold.
            folder: that the run's output goes to.
        """
        from hydra import compose, initialize_config_dir

        if not isinstance(self.options, Mapping | None):
            raise ValueError(f"options={self.options!r}: expected config keys with values, as {{'model.depth': 3}}")
        options = dict(self.options or {})
        if taken := sorted(key for key in options if _is_taken(str(key), by_fold="data.validation.fold" in run)):
            raise ValueError(
                f"options: expected other keys than {taken}; model, random_state and cv are arguments, and series in "
                "memory have neither files nor a test split"
            )
        given = {"logger": [], "trainer.enable_progress_bar": self.verbose, **options, **run, "paths.output": folder}
        overrides = [f"model={self.model}", "data=npz", f"data.path={folder}/series.npz"]
        overrides += [f"{key}={_value(value)}" for key, value in given.items()]
        resolve.register_resolvers()
        with _hydra_set_aside():
            try:
                with initialize_config_dir(str(config_dir()), version_base="1.3"):
                    config = resolve.plain(compose("train", overrides))
            except Exception as error:
                raise UserError(explained("train", overrides, error)) from error
        if targets.is_aeon(config):
            raise ValueError(f"model={self.model!r}: expected a model of krontime; use aeon's classifier itself")
        check_train(config, is_multirun=False)
        if config["data"]["window"]["label"] is not None:
            raise ValueError(
                "options: expected no data.window.label, which cuts recordings; a run of krontime train can"
            )
        return config

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> dict[str, Any]:
        """Small networks for aeon's checks, which classify shorter and longer series than any trained on."""
        small = {"model.d_model": 8, "model.num_heads": 2, "model.num_layers": 1, "model.ffn_dim": 8}
        return {"options": {**small, "trainer.max_epochs": 1}, "allow": ["length"]}


def _collection(X: Any) -> Any:
    """X as an array or a list of arrays, as aeon takes them.

    Raises:
        ValueError: it holds no numbers, or no series.
    """
    if hasattr(X, "sparse") or hasattr(X, "tocsr"):
        raise TypeError("X is a sparse matrix: expected a dense array, or a list of arrays")
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        X = list(X)
    if isinstance(X, list) and X and all(isinstance(series, np.ndarray) for series in X):
        return [unmasked(series) for series in X]
    if not isinstance(X, np.ndarray):
        try:
            X = X.to_numpy() if isinstance(X, pd.DataFrame) else np.asarray(X)
        except ValueError:  # no array: the series are of unequal length
            return [np.asarray(series, np.float64) for series in X]
    if X.dtype.kind == "c":
        raise ValueError("Complex data not supported: X holds complex numbers")
    if X.dtype == object:
        X = X.astype(np.float64)
    X = unmasked(X)
    if X.ndim < 2:
        raise ValueError(
            f"X has shape {X.shape}. Reshape your data: expected (series, points) or (series, channels, points)"
        )
    if not X.size:
        raise ValueError(f"0 feature(s) (shape={X.shape}) while a minimum of 1 is required: X is empty")
    return X


def _is_taken(key: str, *, by_fold: bool) -> bool:
    """Whether a config key has no effect beside the arguments of an estimator and its series in memory."""
    folds = ("data.validation.method", "data.validation.num_folds", "data.validation.fold") if by_fold else ()
    fixed = ("model", "seed", "data", "data.path", "data.train", "data.test", "data.resample", "paths.output", *folds)
    return key in fixed or key.startswith("data.source")


def _seed(random_state: Any) -> int:
    """The seed of a run; a generator of numbers gives the next one."""
    if random_state is None:
        return 0
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _value(value: Any) -> str:
    """A value as an override of Hydra's."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, str) and not re.fullmatch(r"[\w./-]+", value):
        return repr(value)
    return str(value)


@contextlib.contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Put the generators of `random`, NumPy and PyTorch back as they were, where the block fails too."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


@contextlib.contextmanager
def _hydra_set_aside() -> Iterator[None]:
    """Let Hydra be begun anew within the block, in a program that is itself run by Hydra too."""
    from hydra.core.global_hydra import GlobalHydra

    of_program, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = of_program
