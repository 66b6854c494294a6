"""The search of options: on validation alone, to be gone on with, and its best config trains as it did in its trial."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import pandas as pd
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from krontime import cli
from krontime.commands.tune import _yardstick
from krontime.config import files as config_files
from krontime.config import resolve, schema
from krontime.config.identity import config_hash
from krontime.data.datamodule import SeriesDataset
from krontime.data.series import SeriesData
from krontime.runs.network_fit import NetworkFit
from krontime.runs.prepare import load_data
from krontime.runs.record import Record
from krontime.search.space import Space
from tests.cli.run.small import CLOSED_FORM

SPACE = "{optim.optimizer.lr: {low: 0.001, high: 0.1, log: true}, decomposition: [depth1, depth2]}"
SMALL = (
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "data.batch_size=12"),
    *CLOSED_FORM,
    *(
        "trainer.max_epochs=2",
        "trainer.enable_progress_bar=false",
        "optim.min_batches_per_epoch=1",
        "logger=[]",
        "tokenizer=linear",
        "search=own",
    ),
)

Tune = Callable[..., str]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 training and 12 test series of three classes."""
    rng = np.random.default_rng(0)
    y = np.arange(42) % 3
    x = np.sin((y[:, None] + 1) * np.arange(80) / 5 + rng.uniform(0, 6, (42, 1))) + 0.3 * rng.standard_normal((42, 80))
    path = tmp_path_factory.mktemp("tune") / "sines.npz"
    np.savez(path, X=x[:, None].astype(np.float32), y=y, split=np.arange(42) >= 30)
    return path


@pytest.fixture(scope="module")
def tune(file: Path) -> Tune:
    """`tune(folder, num_trials, *overrides)`: what the command prints."""

    def run(folder: Path, num_trials: int, *overrides: str, space: str = SPACE) -> str:
        command = ["tune", "data=npz", f"data.path={file}", f"folder={folder}", f"search.num_trials={num_trials}"]
        with contextlib.redirect_stdout(io.StringIO()) as screen:
            cli.main([*command, *SMALL, f"+search.space={space}", *overrides])
        return screen.getvalue()

    return run


@pytest.fixture(scope="module")
def read_series(compose: Callable[..., dict[str, Any]], file: Path) -> Iterator[list[int]]:
    """Positions of every series that is read in this module's searches, once the file is parsed."""
    load_data(compose("data=npz", f"data.path={file}"))
    seen: list[int] = []
    batch, one = SeriesDataset.__getitems__, SeriesData.series
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeriesDataset, "__getitems__", lambda self, i: seen.extend(i) or batch(self, i))
        patch.setattr(SeriesData, "series", lambda self, i: seen.append(int(i)) or one(self, i))
        yield seen


@pytest.fixture(scope="module")
def searched(tune: Tune, read_series: list[int], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a search of three trials has ended, and its screen."""
    folder = tmp_path_factory.mktemp("search") / "folder"
    screen = tune(folder, 3)
    assert set(read_series) == set(range(30))  # no trial reads a test series
    assert mpl.rcParams["axes.facecolor"] == "white"  # Optuna's plots leave the style as it was
    return folder, screen


def test_it_leaves_a_table_plots_and_trials_without_scores_of_the_test_split(searched):
    folder, screen = searched
    table = pd.read_csv(folder / "trials.csv")
    assert list(table["trial"]) == [0, 1, 2]
    assert (table["state"] == "complete").all()
    assert table["optim.optimizer.lr"].between(0.001, 0.1).all()
    best = table.loc[table["value"].idxmin()]
    assert f"val/loss {best['value']:.4f}, the best of 3 trials, in trial {best['trial']}" in screen
    assert f"krontime train --config-dir {folder} experiment=best" in screen
    assert (folder / "experiment" / "best.yaml").read_text() in screen
    for name in ("history.png", "importances.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not {"record.json", "test_predictions.parquet", "best.ckpt", "last.ckpt"} & names


@pytest.mark.slow
def test_a_search_that_has_ended_trains_nothing_more_and_a_longer_one_goes_on(searched, tune, monkeypatch, tmp_path):
    folder, screen = searched
    with monkeypatch.context() as patch:
        patch.setattr(NetworkFit, "run", lambda self: pytest.fail("trained"))
        assert tune(folder, 3) == screen
    trained: list[Path] = []
    fit = NetworkFit.run
    monkeypatch.setattr(NetworkFit, "run", lambda self: trained.append(self.run_dir) or fit(self))
    assert "of 4 trials" in tune(folder, 4)
    assert [path.name for path in trained] == ["00003"]


def test_the_best_config_trains_to_the_same_validation_score(searched, tmp_path):
    folder, _ = searched
    with initialize_config_dir(str(config_files.config_dir()), version_base="1.3"):
        composed = resolve.plain(hydra_compose("train", [f"hydra.searchpath=[{folder}]", "experiment=best"]))
    best = pd.read_csv(folder / "trials.csv").set_index("trial")["value"]
    trial = OmegaConf.to_container(OmegaConf.load(folder / "trials" / f"{best.idxmin():05d}" / "config.yaml"))
    assert config_hash(composed) == config_hash(trial)
    output = tmp_path / "out"
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main(["train", "--config-dir", str(folder), "experiment=best", f"paths.output={output}", "logger=[]"])
    (path,) = output.rglob("record.json")
    assert Record.read(path).metrics.val["nll"] == pytest.approx(best.min(), abs=1e-6)


def test_a_trial_that_the_pruner_gives_up_stops_after_that_epoch(tune, tmp_path):
    pruner = ["search.pruner._target_=optuna.pruners.ThresholdPruner", "+search.pruner.upper=0"]
    pruner += ["~search.pruner.n_startup_trials", "search.pruner.n_warmup_steps=0"]
    screen = tune(tmp_path / "s", 1, *pruner, "logger=csv")
    assert "has completed yet" in screen
    assert list(pd.read_csv(tmp_path / "s" / "trials.csv")["state"]) == ["pruned"]
    rows = pd.read_csv(tmp_path / "s" / "trials" / "00000" / "metrics.csv")
    assert rows["val/loss"].notna().sum() == 1


@pytest.mark.slow
def test_only_epochs_that_validate_have_a_value(tune, tmp_path):
    space = "{optim.optimizer.lr: [0.01, 0.02]}"
    tune(tmp_path / "s", 1, "+trainer.check_val_every_n_epoch=2", "trainer.max_epochs=5", space=space)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "s" / "journal.log")))
    (trial,) = optuna.load_study(study_name="search", storage=storage).trials
    assert list(trial.intermediate_values) == [1, 3]
    assert trial.value == min(trial.intermediate_values.values())


def test_options_that_do_not_work_end_a_trial_and_a_search_of_nothing_else(tune, monkeypatch, tmp_path):
    def fail(self: NetworkFit) -> None:
        raise MemoryError

    monkeypatch.setattr(NetworkFit, "run", fail)
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as screen:
        tune(tmp_path / "s", 9)
    assert ended.value.code == 2
    assert "no trial has worked yet, of 3:\n  - out of memory\n" in screen.getvalue()


@pytest.mark.slow
def test_wandb_gets_a_run_for_each_trial_and_one_of_the_search(tune, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SILENT", "true")
    tune(tmp_path / "s", 2, "logger=wandb", "trainer.max_epochs=1")
    runs = list(tmp_path.rglob("offline-run-*"))
    assert len({path.name.rpartition("-")[2] for path in runs}) == 3
    (summary,) = (tmp_path / "s" / "wandb").glob("offline-run-*")
    media = {path.name.partition("_")[0] for path in (summary / "files" / "media").rglob("*.*")}
    assert {"trials", "history"} <= media


@pytest.mark.slow
def test_an_interrupted_trial_is_tried_again(tune, monkeypatch, tmp_path):
    def interrupt(self: NetworkFit) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NetworkFit, "run", interrupt)
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()):
            tune(tmp_path / "s", 1)
        assert ended.value.code == 130
    assert "in trial 1" in tune(tmp_path / "s", 1)
    assert not list((tmp_path / "s" / "trials").glob("*.lock"))


@pytest.mark.slow
def test_options_that_fail_unexpectedly_are_tried_twice_and_stop_no_search(tune, monkeypatch, tmp_path):
    fit, failed = NetworkFit.run, []

    def fail_first(self: NetworkFit) -> None:
        options = self.config["optim"], self.config["decomposition"]
        failed.extend([] if failed else [options])
        if options in failed:
            raise RuntimeError("broken\nby this")
        fit(self)

    monkeypatch.setattr(NetworkFit, "run", fail_first)
    with pytest.raises(RuntimeError, match="broken"):
        tune(tmp_path / "s", 2)
    assert "the best of 2 trials" in tune(tmp_path / "s", 2)
    table = pd.read_csv(tmp_path / "s" / "trials.csv")
    assert list(table["trial"]) == [1, 2]
    assert list(table["state"]) == ["pruned", "complete"]
    assert table["problem"][0] == "RuntimeError: broken"


@pytest.mark.parametrize(
    ("overrides", "space", "says"),
    [
        (["search.num_trials=0"], SPACE, ["search.num_trials=0", "at least 1"]),
        (["search.sampler._target_=os.system"], SPACE, ["search.sampler._target_='os.system'", "optuna.samplers"]),
        (["+search.sampler.gama=1"], SPACE, ["search.sampler.gama=1", "no argument gama"]),
        (["+search.trials=1"], SPACE, ["search.trials=1", "no such key"]),
        (["force=true"], SPACE, ["force=True", "another folder"]),
        (["callbacks.checkpoint=null"], SPACE, ["callbacks.checkpoint.monitor=None"]),
        (["data.batch_size=0"], SPACE, ["data.batch_size=0"]),
        ([], "{model.d_modl: [8, 16]}", ["search.space", "model.d_modl=8", "does not work"]),
        ([], "{data.eval_batch_size: [8, 0]}", ["data.eval_batch_size=0", "at least 1"]),
        ([], "{model.d_model: [8, 16]}", ["search.space.model.d_model", "no override of it"]),
        ([], "{model.dropout: {low: 1, high: 0}}", ["search.space.model.dropout", "low to be less than high"]),
        ([], "{seed: [0, 1]}", ["search.space.seed: expected no key that changes the validation series"]),
        ([], "{score: [accuracy, balanced_accuracy]}", ["search.space.score: expected no key"]),
        ([], "{data.resample: {low: 0, high: 3}}", ["search.space.data.resample: expected no key"]),
        ([], "{data.validation.fraction: [0.2, 0.4]}", ["search.space.data.validation.fraction: expected no key"]),
        ([], "{}", ["at least one override"]),
    ],
)
def test_what_can_not_work_is_said_before_anything_is_trained(tune, monkeypatch, tmp_path, overrides, space, says):
    monkeypatch.setattr(NetworkFit, "run", lambda self: pytest.fail("trained"))
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as screen:
        tune(tmp_path / "s", 1, *overrides, space=space)
    assert ended.value.code == 2
    for text in says:
        assert text in screen.getvalue()
    assert not (tmp_path / "s").exists()


def test_a_search_may_set_what_leaves_the_validation_series_as_they_are(compose, file):
    given = ("data=npz", f"data.path={file}")
    base = _yardstick(compose(*given, command="tune"))
    free = ("data.batch_size=3", "data.scaling=none", "data.validation.max_train=9", "data.prepare.crop_length=40")
    for text in (*free, "data.window.length=40"):
        assert _yardstick(compose(*given, text, command="tune")) == base
    cut = (*given, "data.window.length=40", "data.window.label=majority")
    for text in ("data.window.length=20", "data.prepare.crop_length=40", "callbacks.checkpoint=null"):
        assert _yardstick(compose(*cut, text, command="tune")) != _yardstick(compose(*cut, command="tune"))


def test_too_few_validation_series_to_train_a_network_are_refused(tune, monkeypatch, tmp_path):
    monkeypatch.setattr(NetworkFit, "run", lambda self: pytest.fail("trained"))
    given = "closed_form.min_network_series=7"
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as screen:
        tune(tmp_path / "s", 1, given)
    assert ended.value.code == 2
    said = " ".join(screen.getvalue().split())
    assert f"{given}: expected at most the 6 validation series" in said
    assert "closed_form.min_network_series=0" in said
    assert "closed_form=none" in said
    assert not (tmp_path / "s").exists()
    space = "{closed_form.fit_on: [train, train_and_validation]}"  # trials may differ, and each is asked
    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as screen:
        tune(tmp_path / "s", 3, given, space=space)
    assert "expected at most the 6 validation series" in " ".join(screen.getvalue().split())


@pytest.mark.parametrize("model", ["aeon_quant", "closed_form"])
def test_a_model_without_epochs_is_refused(model):
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as screen:
        cli.main(["tune", f"model={model}"])
    assert ended.value.code == 2
    assert f"model={model}: expected a network" in screen.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in config_files.options("search") if name != "own"])
def test_every_search_is_of_options_that_its_model_has(compose: Callable[..., dict[str, Any]], model: str):
    space = Space(compose(f"model={model}", command="tune")["search"]["space"])
    seen = set()
    for _, text in space.ends():
        config = compose(f"model={model}", text, command="tune")
        schema.check_train({key: config[key] for key in config if key not in ("search", "folder")}, is_multirun=True)
        seen.add(config_hash({**config, "search": None}))
    assert len(seen) > len(space.ends()) / 2  # each but the default changes something
