"""Our runs on several data sets and resamples."""

from collections.abc import Callable
from pathlib import Path

import pytest

from krontime.reports.comparison.collect import Stored
from krontime.reports.comparison.compare import Comparison, compare

Scored = Callable[..., Comparison]


@pytest.fixture(scope="session")
def beside(make_record, make_protocol) -> Scored:
    """A comparison from `{model: {data: accuracies of resamples 0, 1, ...}}`; None is a resample that was not run."""

    def make(scores, *, seeds=(0,), train_time_s=None, train_cpu_s=None, classifier=None, **changes):
        runs = []
        for model, by_data in scores.items():
            for data, accuracies in by_data.items():
                for resample, accuracy in enumerate(accuracies):
                    for seed in seeds if accuracy is not None else ():
                        options = {"name": model}
                        if classifier and model in classifier:
                            options["classifier"] = classifier[model]
                        config = {"seed": seed, "data": {"resample": resample}, "model": options}
                        protocol = make_protocol(
                            resample=resample, resampled_by="stratified" if resample else None, **changes
                        )
                        record = make_record(
                            model=model,
                            data=data,
                            seed=seed,
                            accuracy=accuracy + 0.02 * seed,
                            config=config,
                            protocol=protocol,
                            train_time_s=(train_time_s or {}).get(model, 1.0),
                            train_cpu_s=(train_cpu_s or {}).get(model),
                        )
                        runs.append(Stored(record, Path("nowhere")))
        return compare(runs)

    return make
