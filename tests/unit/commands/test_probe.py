"""The probe of levels: the features are those that the head sees, and what a level does not hold is at chance."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from krontime import cli
from krontime.commands.probe import cross_validated, level_features_of
from krontime.errors import UserError
from krontime.reports.folder import refresh
from krontime.reports.probes import Probe
from krontime.runs import load, prepare, run
from krontime.training.predict import Scorer
from tests.cli.run.small import CLOSED_FORM

SMALL = (
    *("data=synthetic", "data.source.num_train=48", "data.source.num_test=0", "data.source.length=512"),
    *(
        "data.source.num_classes=2",
        "tokenizer=linear",
        "closed_form=none",
        "model.d_model=8",
        "model.num_heads=2",
        "model.num_layers=1",
    ),
    *(
        "model.ffn_dim=8",
        "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
        "optim.min_batches_per_epoch=1",
        "logger=[]",
    ),
)


@pytest.fixture(scope="module")
def finished(compose: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe") / "run"
    with contextlib.redirect_stdout(io.StringIO()):
        run.train_in(compose(*SMALL), folder)
    return folder


def test_features_of_all_levels_are_what_the_head_sees(finished):
    result = load.load_run(finished)
    job = prepare.prepare(result.config)
    indices = np.array([7, 3, 20])
    scorer = Scorer.of(result.config)
    features = level_features_of(result.module, scorer, job.data, indices)
    assert [level.shape for level in features] == [(3, 8)] * 3  # depth 2
    network = result.module.network
    joined = torch.from_numpy(np.concatenate(features, axis=1))
    with torch.no_grad():
        probability = network.head(network.norm_head(joined)).softmax(dim=1)
    torch.testing.assert_close(probability, scorer.probabilities(result.module, job.data, indices))


def test_a_level_that_holds_a_pattern_tells_it_and_another_is_at_chance():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    noise = rng.standard_normal((200, 5))
    accuracy, deviation = cross_validated(noise + 6 * labels[:, None], labels, num_folds=5, seed=0)
    assert accuracy > 0.99
    accuracy, deviation = cross_validated(noise, labels, num_folds=5, seed=0)
    assert abs(accuracy - 0.5) < 0.15
    assert deviation > 0


def test_the_command_leaves_a_table_and_a_plot(finished):
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        cli.main(["probe", f"run={finished}", "num_folds=3"])
    table = pd.read_csv(finished / "probe.csv")
    assert list(table["level"]) == [0, 1, 2, 0, 1, 2]
    assert list(table["pattern"]) == ["short"] * 3 + ["long"] * 3
    first, *higher = table["group_size"][:3]
    assert first == 1 < higher[0] < higher[1]
    assert (table["chance"] == 0.5).all()
    assert table["accuracy"].between(0, 1).all()
    assert (finished / "probe.png").read_bytes().startswith(b"\x89PNG")
    assert "level 2" in screen.getvalue()


def test_the_plot_is_made_again_from_the_table(tmp_path):
    table = pd.DataFrame([Probe(0, 1, "short", 0.9, 0.1, 0.25), Probe(0, 1, "long", 0.3, 0.1, 0.25)])
    table.to_csv(tmp_path / "probe.csv", index=False)
    refresh(tmp_path)
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")
    for damaged in (table.drop(columns="chance"), table.assign(level="low"), table.head(0)):
        damaged.to_csv(tmp_path / "probe.csv", index=False)
        with pytest.raises(UserError, match=r"probe\.csv: (not a readable file|expected at least one row)"):
            refresh(tmp_path)


def test_a_network_that_is_not_mixed_in_is_probed_all_the_same(compose, tmp_path):
    options = [option for option in SMALL if option != "closed_form=none"]
    with contextlib.redirect_stdout(io.StringIO()):
        run.train_in(compose(*options, *CLOSED_FORM), tmp_path / "run")
        mixture = load.load_run(tmp_path / "run").module.mixture
        assert mixture is not None
        assert mixture.mixing.weight == 0
        cli.main(["probe", f"run={tmp_path / 'run'}", "num_folds=2"])
    assert len(pd.read_csv(tmp_path / "run" / "probe.csv")) == 6


def test_a_run_of_anything_else_is_refused(compose, finished, tmp_path):
    windows = ("data.window.label=majority", "data.window.length=256")
    with contextlib.redirect_stdout(io.StringIO()):
        run.train_in(compose(*SMALL, "model.head=mean"), tmp_path / "mean")
        run.train_in(compose(*SMALL, *windows), tmp_path / "windows")
    for arguments, says in (
        ([f"run={tmp_path / 'mean'}"], "model.head=levels closed_form=none data=synthetic"),
        ([f"run={tmp_path / 'windows'}"], "expected a run on whole series"),
        ([f"run={finished}", "num_folds=25"], "num_folds=25: expected at most 24"),
        ([f"run={finished}", "num_folds=1"], "num_folds=1: expected a whole number of at least 2"),
    ):
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as screen:
            cli.main(["probe", *arguments])
        assert ended.value.code == 2
        assert says in screen.getvalue()
