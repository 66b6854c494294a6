"""Our scores as tsml-eval's files: to the byte, and read by aeon's own loader."""

import numpy as np
from aeon.benchmarking.results_loaders import get_estimator_results

from krontime.reports.rivals.export import _table, export_tsml
from krontime.reports.rivals.read import read_published_folder
from krontime.reports.rivals.standing import our_scores

ROCKET = {"rocket": "aeon.classification.convolution_based.MultiRocketHydraClassifier"}


def test_files_are_as_tsml_eval_writes_them(beside, tmp_path):
    comparison = beside({"krontime": {"Beef": [0.5, None, 0.25], "ACSF1": [0.91, 0.8, 0.83]}})
    files = export_tsml(comparison, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "tsml/classification/accuracy/krontime_accuracy.csv",
        "tsml/classification/balacc/krontime_balacc.csv",
    ]
    assert files[0].read_bytes() == b"Resamples:,0,1,2\nACSF1,0.91,0.8,0.83\nBeef,0.5,,0.25\n"


def test_aeons_loader_reads_them(beside, tmp_path):
    comparison = beside({"rocket": {"Beef": [0.5, 0.75], "ACSF1": [1 / 3, 0.8]}}, classifier=ROCKET)
    export_tsml(comparison, tmp_path)
    for measure in ("accuracy", "balacc"):
        loaded = get_estimator_results(
            "MultiRocketHydra", num_resamples=None, measure=measure, path=str(tmp_path / "tsml")
        )
        np.testing.assert_array_equal(loaded["MultiRocketHydra"]["ACSF1"], [1 / 3, 0.8])
        np.testing.assert_array_equal(loaded["MultiRocketHydra"]["Beef"], [0.5, 0.75])


def test_we_read_what_we_wrote(beside, tmp_path):
    comparison = beside({"krontime": {"Beef": [0.5, None, 0.25]}, "tcn": {"ACSF1": [0.1]}})
    export_tsml(comparison, tmp_path)
    assert read_published_folder(tmp_path).scores["accuracy"] == our_scores(comparison, "accuracy")


def test_a_name_with_a_comma_stays_one_field():
    assert _table({("trial 1,2", 1): 0.5}) == 'Resamples:,0,1\n"trial 1,2",,0.5\n'
