"""Comparisons of runs whose test predictions are known."""

import numpy as np
import pytest

from krontime.reports.comparison.collect import Stored
from krontime.reports.comparison.compare import compare
from krontime.runs.predictions import Outcomes


@pytest.fixture
def predicted(make_record, make_protocol, write_outcomes, tmp_path):
    """A comparison of runs on one data set from `{model: [which of the series each run got right]}`."""

    def make(rights, labels, balanced=False, index=None, groups=None, **options):
        runs = []
        for model, by_seed in rights.items():
            for seed, right in enumerate(by_seed):
                folder = tmp_path / model / str(seed)
                truth = np.array(labels, dtype=object)
                answers = np.where(right, truth, "wrong").astype(object)
                place = (index or {}).get(model, np.arange(len(truth)))
                write_outcomes(Outcomes(place, truth, answers, groups=groups), folder)
                by_class = [np.mean(right[truth == name]) for name in np.unique(labels)]
                protocol = make_protocol(train_class_counts={"x": 9, "y": 1} if balanced else {"x": 9, "y": 9})
                record = make_record(
                    model=model,
                    seed=seed,
                    protocol=protocol,
                    accuracy=float(right.mean()),
                    balanced_accuracy=float(np.mean(by_class)),
                )
                runs.append(Stored(record, folder))
        return compare(runs, **options)

    return make
