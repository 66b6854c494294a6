"""Classifiers of aeon under the protocol of the networks: what they are fitted on, what they leave and refuse."""

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aeon.classification import DummyClassifier
from aeon.classification.interval_based import QUANTClassifier

from krontime import cli
from krontime.config import files as config_files
from krontime.config import schema
from krontime.data.normalizer import Normalizer
from krontime.data.series import SeriesData
from krontime.errors import UserError
from krontime.runs import classical_fit, prepare, run
from krontime.runs.classical_fit import Arrays, ClassicalFit
from krontime.runs.predictions import read_predictions
from krontime.runs.record import Record, Status

pytestmark = [
    pytest.mark.usefixtures("quick_plots"),
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),  # of aeon's with NumPy and PyTorch
]

DUMMY = ("model=aeon", "model.classifier=aeon.classification.DummyClassifier")
QUANT = ("model=aeon_quant", "model.estimator.interval_depth=2")
REFERENCES = [name for name in config_files.options("model") if name.startswith("aeon_")]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 training and 12 test series of 3 classes: sines of their own frequency, 60 to 80 points, with gaps."""
    rng = np.random.default_rng(0)
    y = np.arange(42) % 3
    lengths = np.r_[rng.integers(60, 79, size=30), rng.integers(60, 79, size=11), 90]
    series = [
        np.sin((label + 1) * np.arange(length) / 4 + rng.uniform(0, 6)) + 0.2 * rng.standard_normal(length)
        for label, length in zip(y, lengths, strict=True)
    ]
    series[3][10:14] = np.nan
    path = tmp_path_factory.mktemp("reference") / "sines.npz"
    offsets = np.cumsum([0, *lengths])
    np.savez(path, X_flat=np.concatenate(series)[None], offsets=offsets, y=y, split=np.arange(42) >= 30)
    return path


@pytest.fixture(scope="module")
def config(compose: Callable[..., dict[str, Any]], file: Path) -> Callable[..., dict[str, Any]]:
    return lambda *overrides: compose("data=npz", f"data.path={file}", *overrides)


def train(config: dict[str, Any], folder: Path) -> Record:
    with contextlib.redirect_stdout(io.StringIO()):
        record = run.train_in(config, folder)
    assert record is not None
    return record


@pytest.fixture(scope="module")
def finished(config: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "quant"
    train(config(*QUANT), folder)
    return folder


def test_the_record_and_the_files_are_those_of_any_run(finished, config):
    record = Record.read(finished / "record.json")
    assert record.status is Status.COMPLETED
    assert record.protocol == prepare.prepare(config(*QUANT)).protocol
    assert record.protocol.fitted_on == "train"
    assert record.protocol.selection_metric is None
    assert record.num_parameters is None
    assert record.train_time_s == record.part_times_s["classifier"] > 0
    assert set(record.part_times_s) == {"reading", "classifier", "scoring"}
    assert record.inference_ms_per_series > 0
    assert record.peak_memory_bytes > 0
    assert record.metrics.val["accuracy"] > 0.8
    assert record.metrics.test["accuracy"] > 0.8
    assert record.metrics.test["nll"] is not None
    names = {path.name for path in finished.iterdir()}
    assert {"record.json", "config.yaml", "test_predictions.parquet", "confusion_matrix.png"} <= names
    assert not {"checkpoints", "learning_curves.png"} & names


def test_it_is_aeons_classifier_on_the_scaled_training_series(finished, config):
    """Built by hand: scaled, 0 where missing, padded to the longest training series, the longer test series cut."""
    job = prepare.prepare(config(*QUANT))
    length = max(job.data.lengths[job.split.train])
    assert job.protocol.series_length == length < 90

    def array(indices: np.ndarray) -> np.ndarray:
        predictions = np.zeros((len(indices), 1, length))
        for row, index in enumerate(indices):
            x = job.data.series(index)[0]
            scaled = np.nan_to_num((x - np.nanmean(x)) / np.nanstd(x))[:length]
            predictions[row, 0, : len(scaled)] = scaled
        return predictions

    classifier = QUANTClassifier(interval_depth=2, random_state=0)
    classifier.fit(array(job.split.train), job.data.labels[job.split.train])
    expected = classifier.predict_proba(array(job.split.test))
    predictions = read_predictions(finished / "test_predictions.parquet")
    np.testing.assert_array_equal(predictions.index, job.split.test)
    np.testing.assert_allclose(
        predictions.probabilities, expected, atol=0.02
    )  # float32 may take another branch of a tree


@pytest.mark.parametrize("fit_on", ["train", "train_and_validation"])
def test_it_sees_the_series_that_the_protocol_names(config, monkeypatch, tmp_path, fit_on):
    seen: list[tuple[str, np.ndarray]] = []
    monkeypatch.setattr(ClassicalFit, "_warm_up", lambda *_: None)
    read = Arrays.read
    monkeypatch.setattr(Arrays, "read", lambda self, indices: seen.append(("read", indices)) or read(self, indices))
    fit = DummyClassifier.fit
    monkeypatch.setattr(DummyClassifier, "fit", lambda self, x, y: seen.append(("fit", y)) or fit(self, x, y))
    scaled = []
    normalise = Normalizer.fit
    monkeypatch.setattr(Normalizer, "fit", lambda *args: scaled.append(args[2]) or normalise(*args))
    options = config(*DUMMY, f"model.fit_on={fit_on}")
    record = train(options, tmp_path / "run")
    job = prepare.prepare(options)
    expected = job.split.train if fit_on == "train" else np.flatnonzero(~job.data.is_test)
    (first, indices), (second, labels) = seen[:2]
    assert (first, second) == ("read", "fit")
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scaled[0], expected)
    np.testing.assert_array_equal(labels, job.data.labels[expected])
    assert record.protocol.fitted_on == fit_on
    assert bool(record.metrics.val) == (fit_on == "train")  # scores on what was fitted on say nothing
    rest = np.concatenate([indices for _, indices in seen[2:]])
    test = [job.split.test[:1], job.split.test]  # the first alone, before the time is taken
    after = [job.split.validation, *test] if fit_on == "train" else test
    np.testing.assert_array_equal(rest, np.concatenate(after))


@pytest.mark.parametrize("limit", [("WARM_UP_SERIES", 1), ("WARM_UP_CLASSES", 2), ("WARM_UP_POINTS", 9)])
def test_it_is_compiled_on_a_few_series_apart_from_the_fit(limit, config, monkeypatch, tmp_path):
    monkeypatch.setattr(classical_fit, *limit)
    fitted: list[tuple[int, ...]] = []
    fit = DummyClassifier.fit

    def slow_at_first(self, x, y):
        if not fitted:
            time.sleep(0.5)
        fitted.append(x.shape)
        return fit(self, x, y)

    monkeypatch.setattr(DummyClassifier, "fit", slow_at_first)
    record = train(config(*DUMMY), tmp_path / "run")
    few, all_of_them = fitted
    assert few[0] == {"WARM_UP_SERIES": 3, "WARM_UP_CLASSES": 6, "WARM_UP_POINTS": 9}[limit[0]]
    assert few[2] == (9 if limit[0] == "WARM_UP_POINTS" else all_of_them[2])
    assert all_of_them[0] == record.protocol.num_train
    assert record.warm_up_s > 0.5 > record.train_time_s
    assert 0 < record.train_cpu_s < 0.5


def test_a_classifier_that_takes_no_few_series_is_fitted_all_the_same(config, monkeypatch, tmp_path):
    fit = DummyClassifier.fit

    def fit_many(self, x, y):
        if len(x) < 10:
            raise ValueError("too few")
        return fit(self, x, y)

    monkeypatch.setattr(DummyClassifier, "fit", fit_many)
    record = train(config(*DUMMY), tmp_path / "run")
    assert record.status is Status.COMPLETED
    assert record.warm_up_s is None


def test_arrays_are_padded_cut_and_read_in_batches():
    lengths = [5, 3, 7, 5]
    data = SeriesData(
        values=np.arange(1, 41, dtype=np.float32),
        offsets=np.cumsum([0, *lengths]),
        labels=np.zeros(4, np.int64),
        is_test=np.zeros(4, bool),
        class_names=("a",),
        num_channels=2,
        has_missing=False,
    )
    arrays = Arrays(data, np.array([0, 1]), scaling="none", length=5, batch_size=3)
    actual = arrays.read(np.array([2, 0, 1, 3]))
    assert actual.shape == (4, 2, 5)
    for row, index in enumerate([2, 0, 1, 3]):
        kept = min(lengths[index], 5)
        np.testing.assert_array_equal(actual[row, :, :kept], data.series(index)[:, :kept])
        assert not actual[row, :, kept:].any()
    channel = Arrays(data, np.array([0, 1]), scaling="channel", length=5, batch_size=3).read(np.array([0, 1]))
    observed = np.concatenate([channel[0, :, :5], channel[1, :, :3]], axis=1)
    np.testing.assert_allclose(observed.mean(axis=1), 0, atol=1e-6)  # padding is no part of the statistics
    np.testing.assert_allclose(observed.std(axis=1), 1, atol=1e-6)


def test_a_finished_run_is_found_again(finished, config, monkeypatch):
    monkeypatch.setattr(ClassicalFit, "run", lambda self: pytest.fail("fitted again"))
    assert train(config(*QUANT), finished) == Record.read(finished / "record.json")


def test_scores_of_probabilities_are_left_out_where_only_a_class_is_named(config, tmp_path):
    options = config(*DUMMY)
    fit = ClassicalFit(options, prepare.prepare(options), tmp_path, is_first=True)
    labels = np.array([0, 1, 2, 1])
    named = torch.eye(3)[[0, 1, 1, 1]]
    values = fit.scores(named, labels)
    assert values["accuracy"] == 0.75
    assert values["nll"] is None
    assert values["ece"] is None
    assert None not in fit.scores(0.9 * named + 0.1 / 3, labels).values()


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [
        (MemoryError("no room"), UserError, Status.OUT_OF_MEMORY),
        (ValueError("too short"), UserError, Status.FAILED),
        (OverflowError("cannot convert float infinity to integer"), UserError, Status.FAILED),
        (ZeroDivisionError("division by zero"), UserError, Status.FAILED),
        (IndexError("index 3 is out of bounds"), UserError, Status.FAILED),
        (RuntimeError("broken"), RuntimeError, Status.FAILED),
        (KeyboardInterrupt(), KeyboardInterrupt, Status.INTERRUPTED),
    ],
)
def test_how_it_ended_is_recorded(config, monkeypatch, tmp_path, error, raised, status):
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(DummyClassifier, "fit", fail)
    with pytest.raises(raised):
        train(config(*DUMMY), tmp_path / "run")
    record = Record.read(tmp_path / "run" / "record.json")
    assert record.status is status
    assert not record.metrics.test


@pytest.mark.parametrize("name", ["aeon_minirocket", "aeon_multirocket_hydra", "aeon_quant"])
@pytest.mark.parametrize("length", [1, 2])
def test_series_that_are_too_short_for_any_are_refused_before_the_work(compose, tmp_path, name, length):
    x = np.arange(24.0 * length).reshape(24, 1, length)
    np.savez(tmp_path / "short.npz", X=x, y=np.arange(24) % 2, split=np.zeros(24, int))
    with pytest.raises(UserError, match=f"expected series of at least 3 points; the longest of short has {length}"):
        train(compose("data=npz", f"data.path={tmp_path / 'short.npz'}", f"model={name}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_threads_stay_as_they_were(config, monkeypatch, tmp_path):
    fit = DummyClassifier.fit
    monkeypatch.setattr(DummyClassifier, "fit", lambda *args: torch.set_num_threads(2) or fit(*args))
    assert train(config(*DUMMY), tmp_path / "run").device.num_threads == 1
    assert torch.get_num_threads() == 1


# configs


@pytest.mark.parametrize("name", REFERENCES)
def test_a_config_has_aeons_defaults_and_the_runs_seed(compose, name):
    options = compose(f"model={name}", "seed=3")
    schema.check_train(options, is_multirun=False)
    estimator = classical_fit.aeon_classifier(options, num_jobs=2).estimator
    defaults = type(estimator)().get_params(deep=False)
    changed = {key: value for key, value in estimator.get_params(deep=False).items() if value != defaults[key]}
    assert changed == {"random_state": 3, **({"n_jobs": 2} if "n_jobs" in defaults else {})}


def test_any_classifier_of_aeon_is_named_after_its_class(compose):
    options = compose(*DUMMY, "+model.estimator.strategy=stratified")
    schema.check_train(options, is_multirun=False)
    assert options["model"]["name"] == "DummyClassifier"
    assert classical_fit.aeon_classifier(options, num_jobs=1).estimator.strategy == "stratified"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.classifier=sklearn.dummy.DummyClassifier"], ["sklearn.dummy.DummyClassifier", "aeon.classification"]),
        (["model.classifier=aeon.classification.base.np.save"], ["a class defined in an allowed module"]),
        (["model.classifier=aeon.classification.Dumy"], ["'Dumy' was not found"]),
        (["+model.estimator.depth=3"], ["model.estimator.depth=3", "no argument depth"]),
        (["model.fit_on=test"], ["model.fit_on='test'", "train_and_validation"]),
        (["compile=true", "augment.shift=0.1"], ["compile=True: expected False", "augment.shift=0.1: expected 0"]),
        (["loss.class_weights=balanced", "data.window.length=20"], ["loss.class_weights", "data.window.length=20"]),
        (["trainer=ddp_cpu"], ["trainer.devices=2: expected 1"]),
    ],
)
def test_what_can_not_work_is_refused(compose, overrides, says):
    with pytest.raises(UserError) as error:
        schema.check_train(compose(*DUMMY, *overrides), is_multirun=False)
    for text in says:
        assert text in str(error.value)


def test_a_class_that_classifies_no_series_is_refused(compose):
    options = compose("model=aeon", "model.classifier=aeon.classification.sklearn.RotationForestClassifier")
    with pytest.raises(UserError, match=r"model\.classifier='aeon\.classification\.sklearn.*classifier of series"):
        classical_fit.aeon_classifier(options, num_jobs=1)


def test_the_class_path_is_asked_for():
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as screen:
        cli.main(["train", "model=aeon"])
    assert ended.value.code == 2
    assert "model.classifier=...: expected a value" in screen.getvalue()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("plan model=aeon_quant length=100", "expected a network"),
        ("evaluate run={run}", "a reference classifier is not kept"),
        ("predict run={run} input={file} output={run}/p.csv", "a reference classifier is not kept"),
    ],
)
def test_commands_for_networks_say_so(finished, file, command, says):
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as screen:
        cli.main(command.format(run=finished, file=file).split())
    assert ended.value.code == 2
    assert says in " ".join(screen.getvalue().split())


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.filterwarnings("ignore:Some invalid values .* were converted to zeros:UserWarning")  # of aeon's shapelets
def test_every_reference_learns(config, tmp_path, name):
    limit = ["model.estimator.time_limit_in_minutes=0.05"] if name == "aeon_hc2" else []
    record = train(config(f"model={name}", *limit), tmp_path / "run")
    assert record.metrics.test["accuracy"] > 0.8
    # ridge classifiers only name a class
    assert (record.metrics.test["nll"] is not None) == (name in {"aeon_quant", "aeon_rist", "aeon_rstsf", "aeon_hc2"})
