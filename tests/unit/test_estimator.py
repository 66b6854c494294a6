"""The Python API: the command's numbers, the inputs that a notebook has, and what aeon and scikit-learn check."""

import io
import json
import logging
import pickle
import random
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import initialize
from hydra.core.global_hydra import GlobalHydra
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

import krontime
from krontime.data.in_memory import labelled_series
from krontime.errors import UserError
from krontime.estimator import KronTimeClassifier
from krontime.runs.run import train_in
from krontime.runs.trained_model import TrainedModel
from tests.cli.run.small import CLOSED_FORM

SMALL = {
    "model.d_model": 8,
    "model.num_heads": 2,
    "model.num_layers": 1,
    "model.ffn_dim": 8,
    "trainer.max_epochs": 1,
    "optim.min_batches_per_epoch": 1,
    **{key: json.loads(value) for key, _, value in (option.partition("=") for option in CLOSED_FORM)},
}

NOT_APPLICABLE = {
    "check_no_attributes_set_in_init": "aeon's base class sets classes_, is_fitted, metadata_ and n_classes_ there",
    "check_dont_overwrite_parameters": "aeon's base class changes is_fitted",
    "check_n_features_in_after_fitting": "series of another length are refused, in other words than scikit-learn's",
}


def classifier(**changes: Any) -> KronTimeClassifier:
    return KronTimeClassifier(options={**SMALL, **changes})


def labelled(num_series: int = 24, length: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with a sine wave in every second series."""
    y = np.array(["hum", "quiet"])[np.arange(num_series) % 2]
    X = np.random.default_rng(0).normal(size=(num_series, 1, length)).astype(np.float32)
    X[y == "hum"] += np.sin(np.arange(length) / 3).astype(np.float32)
    return X, y


@pytest.fixture(scope="module")
def fitted() -> KronTimeClassifier:
    return classifier().fit(*labelled())


def test_the_import_is_light():
    code = "import krontime, sys; print(krontime.__version__, 'torch' in sys.modules, 'aeon' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [krontime.__version__, "False", "False"]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = krontime.nonsense


def test_the_numbers_are_those_of_the_command(fitted, compose, tmp_path):
    X, y = labelled()
    np.savez(tmp_path / "series.npz", X=X, y=y, split=np.zeros(len(y), int))
    options = [f"{key}={value}" for key, value in SMALL.items()]
    train_in(compose("data=npz", f"data.path={tmp_path / 'series.npz'}", "logger=[]", *options), tmp_path / "run")
    loaded = krontime.load(tmp_path / "run")
    assert loaded.classes_.tolist() == fitted.classes_.tolist() == ["hum", "quiet"]
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert np.array_equal(loaded.predict(X), fitted.predict(X))


def test_series_are_prepared_in_training_as_they_are_for_prediction(compose, tmp_path):
    X, y = labelled()
    X[:, :, 30:] = 0
    np.savez(tmp_path / "series.npz", X=X, y=y, split=np.zeros(len(y), int))
    options = {**SMALL, "closed_form.min_network_series": 100, "data.prepare.crop_length": 25}
    given = [f"{key}={value}" for key, value in options.items()]
    train_in(compose("data=npz", f"data.path={tmp_path / 'series.npz'}", "logger=[]", *given), tmp_path / "run")
    fitted = KronTimeClassifier(options=options).fit(X, y)
    assert fitted.models_[0].run.spec == krontime.load(tmp_path / "run").run.spec
    assert np.array_equal(fitted.predict_proba(X), krontime.load(tmp_path / "run").predict_proba(X))
    assert fitted.models_[0].record.protocol == krontime.load(tmp_path / "run").record.protocol


def test_series_are_resampled_from_the_rate_that_is_said(compose, tmp_path):
    X, y = labelled()
    np.savez(tmp_path / "series.npz", X=X, y=y, split=np.zeros(len(y), int), fs=100.0)
    options = {**SMALL, "data.prepare.resample_hz": 50}
    given = [f"{key}={value}" for key, value in options.items()]
    train_in(compose("data=npz", f"data.path={tmp_path / 'series.npz'}", "logger=[]", *given), tmp_path / "run")
    model, fitted = krontime.load(tmp_path / "run"), KronTimeClassifier(options=options, sampling_rate_hz=100).fit(X, y)
    expected = fitted.predict_proba(X)
    assert np.array_equal(model.predict_proba(X, sampling_rate_hz=100.0), expected)
    assert np.array_equal(model.predict(X, sampling_rate_hz=100.0), fitted.predict(X))
    assert model.predict_set(X, coverage=0.5, sampling_rate_hz=100.0).shape == (len(X), 2)
    longer = np.repeat(X, 2, axis=2)
    assert model.predict_proba(longer, sampling_rate_hz=200).shape == expected.shape
    for refused in (lambda: model.predict_proba(X), lambda: KronTimeClassifier(options=options).fit(X, y)):
        with pytest.raises(ValueError, match=r"state the rate \(sampling_rate_hz, or the key fs"):
            refused()
    with pytest.raises(ValueError, match="sampling_rate_hz=-1: expected points per second above 0"):
        model.predict_proba(X, sampling_rate_hz=-1)


def test_another_rate_than_that_of_training_is_refused():
    X, y = labelled()
    model = KronTimeClassifier(options=SMALL, sampling_rate_hz=100).fit(X, y).models_[0]
    assert np.array_equal(model.predict_proba(X), model.predict_proba(X, sampling_rate_hz=100))
    with pytest.raises(ValueError, match="X: expected 100 points per second, as in training; 24 of 24 series have 50"):
        model.predict_proba(X, sampling_rate_hz=50)


def test_a_pickled_classifier_gives_the_same_numbers(fitted):
    X, _ = labelled(6)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), fitted.predict_proba(X))
    with zipfile.ZipFile(io.BytesIO(fitted.models_[0].__getstate__()["bundle"])) as bundle:
        assert {file.date_time for file in bundle.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # the same bytes at any time


def test_threads_that_classify_at_once_leave_the_output_of_the_process_as_it_was(fitted, monkeypatch):
    X, _ = labelled(4)
    first_is_in, second_is_in, first_is_out = threading.Event(), threading.Event(), threading.Event()

    def predict_proba(*_: Any) -> np.ndarray:
        is_first = not first_is_in.is_set()
        (first_is_in if is_first else second_is_in).set()
        assert (second_is_in if is_first else first_is_out).wait(60)
        return np.full((4, 2), 0.5)

    monkeypatch.setattr(TrainedModel, "predict_proba", predict_proba)
    before = sys.stdout, logging.getLogger("krontime").level
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(fitted.predict, X)
        first.add_done_callback(lambda _: first_is_out.set())
        assert first_is_in.wait(60)
        threads.submit(fitted.predict, X).result()
    assert (sys.stdout, logging.getLogger("krontime").level) == before
    assert not sys.stdout.closed


@pytest.mark.parametrize("fails", [False, True])
def test_random_numbers_of_the_program_go_on_as_without_a_fit(fails):
    def drawn() -> list[float]:
        return [random.random(), np.random.random(), torch.rand(1).item()]  # noqa: NPY002

    X, y = labelled()
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    expected = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    options = {"data.validation.fraction": 0.99} if fails else {}  # which is told once the seed is set
    with pytest.raises(UserError) if fails else nullcontext():
        classifier(**options).fit(X, y)
    assert drawn() == expected


def test_threads_that_train_at_once_wait_for_each_other(fitted):
    X, y = labelled()
    expected = fitted.predict_proba(X)
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: classifier().fit(X, y).predict_proba(X), range(2)))
    assert all(np.array_equal(answer, expected) for answer in answers)


@pytest.mark.parametrize("option", ["model.depth", "model.d_modle"])
def test_a_program_that_hydra_runs_can_train(option):
    with initialize(version_base="1.3"):
        program = GlobalHydra.instance().hydra
        fit = classifier(**{option: 2}).fit
        with nullcontext() if option == "model.depth" else pytest.raises(UserError, match=r"model\.d_modle"):
            fit(*labelled())
        assert GlobalHydra.instance().hydra is program


def test_every_form_of_input_is_classified_alike(fitted):
    X, _ = labelled(4)
    expected = fitted.predict_proba(X)
    assert np.array_equal(fitted.predict_proba(X[:, 0]), expected)
    assert np.array_equal(fitted.predict_proba(X[:, 0].tolist()), expected)
    assert np.array_equal(fitted.predict_proba(list(X)), expected)
    of_objects = np.empty(len(X), object)
    of_objects[:] = list(X[:, 0])
    assert np.array_equal(fitted.predict_proba(of_objects), expected)


def test_what_a_masked_array_masks_is_missing(fitted):
    X, y = labelled(4)
    mask = np.zeros(X.shape, bool)
    mask[:, :, 20:30] = True
    masked = np.ma.masked_array(np.where(mask, np.float32(-999), X), mask)
    expected = fitted.predict_proba(np.where(mask, np.float32(np.nan), X))
    model = fitted.models_[0]
    for given in (masked, list(masked)):
        assert np.array_equal(fitted.predict_proba(given), expected)
        assert np.array_equal(model.predict_proba(given), expected)
    with pytest.raises(ValueError, match="y is masked at 1 of its places"):
        classifier().fit(X, np.ma.masked_array(y, [True, False, False, False]))


def test_channels_that_look_like_points_are_warned_of(caplog):
    X, y = labelled()
    labelled_series(X, y)
    assert not caplog.records
    labelled_series(X.transpose(0, 2, 1), y)
    assert "it has 60 channels of 1 points; " in caplog.text


def test_tables_have_their_columns_in_the_order_of_the_fit():
    X, y = labelled(12)
    table = pd.DataFrame(X[:, 0]).add_prefix("t")
    fitted = classifier().fit(table, y)
    assert np.array_equal(fitted.predict_proba(table), fitted.predict_proba(X))
    with pytest.raises(ValueError, match="must be in the same order as they were in fit, as t0, t1"):
        fitted.predict(table[table.columns[::-1]])
    with pytest.raises(ValueError, match=r"should match those in fit, as t0, t1, .*: X has x0, x1"):
        fitted.predict(pd.DataFrame(X[:, 0]).add_prefix("x"))


def test_unequal_lengths_and_gaps_are_trained_on_and_classified():
    X, y = labelled()
    series = [values[:, : 40 + position % 20].copy() for position, values in enumerate(X)]
    series[3][0, 5:9] = np.nan
    probability = classifier().fit(series, y).predict_proba(series)
    assert np.isfinite(probability).all()
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("y", [[3, 1], ["10", "9"]])
def test_columns_are_in_the_order_of_the_classes(y):
    X, names = labelled()
    labels = np.array(y)[(names == "quiet").astype(int)]
    fitted = classifier(**{"trainer.max_epochs": 4}).fit(X, labels)
    assert fitted.classes_.tolist() == sorted(y)
    assert (fitted.predict(X) == labels).mean() > 0.8


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_class_is_refused(missing):
    X, y = labelled()
    with pytest.raises(ValueError, match="y contains NaN or None"):
        classifier().fit(X, [missing, *y[1:]])


def test_classes_that_differ_in_white_space_alone_are_refused():
    X, y = labelled(4)
    with pytest.raises(ValueError, match=r"y holds \[' hum', 'hum'\], which are one class"):
        classifier().fit(X, [" hum", *y[1:3], "hum"])


def test_lists_of_lists_whole_numbers_as_objects_and_a_generator_for_a_seed():
    X, y = labelled()
    numbers = np.where(y == "hum", 3, 1)
    series = [values[0, : 40 + position % 20] for position, values in enumerate(X)]
    fits = [
        KronTimeClassifier(options=SMALL, random_state=np.random.RandomState(3)).fit(
            [values.tolist() for values in series], labels
        )
        for labels in (numbers.astype(object), numbers)
    ]
    assert [fit.classes_.tolist() for fit in fits] == [[1, 3]] * 2
    assert np.array_equal(fits[0].predict_proba(series), fits[1].predict_proba(series))


def test_folds_are_averaged():
    X, y = labelled()
    folds = KronTimeClassifier(options=SMALL, cv=np.int64(2)).fit(X, y)
    each = [model.predict_proba(X) for model in folds.models_]
    assert len(each) == 2
    assert not np.array_equal(*each)
    assert np.allclose(folds.predict_proba(X), np.mean(each, axis=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"model.d_modle": 8}}, r"model.d_modle.*model\.d_model"),
        ({"options": ["model.d_model=8"]}, "expected config keys with values"),
        ({"options": {"model": "tcn"}}, "other keys than \\['model'\\]"),
        ({"model": "kron"}, "model=kron: .*krontime"),
        ({"random_state": "one"}, "to seed a numpy.random.RandomState"),
        ({"options": {"trainer.max_epochs": -5}}, "trainer.max_epochs"),
        ({"cv": 1}, "cv=1"),
        ({"options": {"data.window.length": 20, "data.window.label": "majority"}}, r"expected no data\.window\.label"),
        ({"allow": ["rate"]}, r"allow=\['rate'\]: expected a list of length"),
        ({"allow": "lengths"}, "allow='lengths'"),
        ({"options": {"data.resample": 1, "data.source.layout": "channels_last"}}, "'data.resample', 'data.source.lay"),
        ({"options": {"data.validation.num_folds": 3}, "cv": 2}, "other keys than \\['data.validation.num_folds'\\]"),
        ({"model": "aeon_quant"}, "aeon_quant"),
    ],
)
def test_options_that_cannot_work_are_named(changes, message):
    with pytest.raises(Exception, match=message):
        KronTimeClassifier(**changes).fit(*labelled())


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 2, 60)), "2 channels"),
        (np.zeros((2, 1, 61)), r"at most 60.*allow=\['length'\] cuts them"),
        (np.zeros((2, 1, 59)), "at least 60"),
        ([np.zeros(60), np.zeros(7)], "at least 60 points, as in training; series 1 has 7"),
        (np.full((2, 1, 60), np.inf), "infinite"),
        ([np.zeros(5), np.zeros((2, 5))], "channels"),
    ],
)
def test_series_that_do_not_fit_are_refused(fitted, X, message):
    with pytest.raises(ValueError, match=message):
        fitted.models_[0].predict_proba(X)


def test_other_lengths_are_classified_where_that_is_asked_for(fitted):
    X, _ = labelled(4)
    longer = np.concatenate([X, np.ones((4, 1, 30))], axis=2)
    cut = fitted.models_[0].predict_proba(longer, allow=["length"])
    assert np.array_equal(cut, fitted.predict_proba(X))
    shorter = KronTimeClassifier(options=SMALL, allow=["length"])
    shorter.__dict__.update({key: value for key, value in fitted.__dict__.items() if key != "allow"})
    assert shorter.predict([X[0, 0, :50], X[1, 0]]).shape == (2,)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected the folder of a finished run"):
        krontime.load(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn_that_apply_pass():
    failed = {}
    for estimator, check in estimator_checks_generator(classifier()):
        name = getattr(check, "func", check).__name__
        if name in NOT_APPLICABLE:
            continue
        try:
            check(estimator)
        except AssertionError as error:
            failed[name] = error
        except Exception as error:
            if type(error).__name__ != "SkipTest":
                failed[name] = error
    assert failed == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_aeon_pass():
    from aeon.testing.estimator_checking import check_estimator

    results = check_estimator(KronTimeClassifier, raise_exceptions=False, verbose=False)
    assert {name: said for name, said in results.items() if said != "PASSED"} == {}
    assert len(results) > 20


@pytest.mark.slow
def test_it_is_cross_validated_like_any_estimator():
    scores = cross_val_score(classifier(**{"trainer.max_epochs": 5}), *labelled(), cv=3)
    assert scores.mean() > 0.6
