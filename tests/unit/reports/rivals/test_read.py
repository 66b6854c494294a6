"""Folders of published figures, in both layouts, and what is wrong with one."""

import pytest

from krontime.errors import UserError
from krontime.reports.rivals.read import read_published_folder

HC2 = "Resamples:,0,1,2\nACSF1,0.91,0.8,0.83\nBeef,0.8,,0.7\n"


def test_a_file_for_each_classifier_and_measure(tmp_path):
    (tmp_path / "accuracy").mkdir()
    (tmp_path / "accuracy" / "HC2_accuracy.csv").write_text(HC2)
    (tmp_path / "R-STSF_ACC.csv").write_text("Resamples:,0,1\nACSF1,0.5,0.6\n")
    (tmp_path / "HC2_logloss.csv").write_text("Resamples:,0\nACSF1,12.98\n")
    (tmp_path / "HC2_balacc.csv").write_text("Resamples:,0\nACSF1,0.9\n")
    (tmp_path / "HC2_TESTFOLDS.csv").write_text("another kind of file\n")
    published = read_published_folder(tmp_path)
    assert published.scores["accuracy"] == {
        "HC2": {("ACSF1", 0): 0.91, ("ACSF1", 1): 0.8, ("ACSF1", 2): 0.83, ("Beef", 0): 0.8, ("Beef", 2): 0.7},
        "R-STSF": {("ACSF1", 0): 0.5, ("ACSF1", 1): 0.6},
    }
    assert published.scores["nll"] == {"HC2": {("ACSF1", 0): 12.98}}
    assert published.scores["balanced_accuracy"] == {"HC2": {("ACSF1", 0): 0.9}}
    assert published.source == tmp_path.name


def test_a_file_for_each_measure(tmp_path):
    (tmp_path / "auroc.csv").write_text("dataset,classifier,r0,r1\nACSF1,HC2,0.9,0.8\nACSF1,TSF,,0.7\n")
    (tmp_path / "README.md").write_text("# Published\n\nFrom a public\nrepository.\n\nMore.\n")
    published = read_published_folder(tmp_path)
    assert published.scores == {"auroc": {"HC2": {("ACSF1", 0): 0.9, ("ACSF1", 1): 0.8}, "TSF": {("ACSF1", 1): 0.7}}}
    assert published.source == "From a public repository."


def test_all_that_is_wrong_is_named_at_once(tmp_path):
    (tmp_path / "HC2_accuracy.csv").write_text("Resamples:,0,1\nACSF1,0.9,much\nBeef,1.2,nan\nCar,0.5\nACSF1,0.9,\n")
    (tmp_path / "TSF_accuracy.csv").write_text("Resamples:,first\nACSF1,0.9\n")
    (tmp_path / "auroc.csv").write_text("data,model,r0\nACSF1,HC2,0.9\n")
    with pytest.raises(UserError) as error:
        read_published_folder(tmp_path)
    lines = [problem.removeprefix(f"{tmp_path}/") for problem in error.value.problems]
    assert lines == [
        "HC2_accuracy.csv: line 2: 'much': expected a figure of accuracy",
        "HC2_accuracy.csv: line 3: '1.2': expected a figure of accuracy",
        "HC2_accuracy.csv: line 3: 'nan': expected a figure of accuracy",
        "HC2_accuracy.csv: line 4: expected 3 fields, found 2",
        "HC2_accuracy.csv: line 5: HC2 has a figure of ACSF1 already",
        "TSF_accuracy.csv: expected the columns the name of a data set and the numbers of resamples, "
        "found Resamples:,first",
        "auroc.csv: expected the columns dataset,classifier and the numbers of resamples, found data,model,r0",
    ]


def test_a_folder_without_figures_says_what_is_expected(tmp_path):
    with pytest.raises(UserError, match=r"published=.*expected files NAME_MEASURE\.csv"):
        read_published_folder(tmp_path)
