"""What the framework adds is measured beside a bare loop that trains the same network on the same batches."""

import json
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from krontime import cli
from krontime.commands import overhead
from krontime.data.datamodule import SeriesDataset
from krontime.runs import fitted_module, prepare
from tests.cli.run.small import CLOSED_FORM

SMALL = (
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *CLOSED_FORM,
    *("data.batch_size=4", "trainer.max_epochs=9", "optim.min_batches_per_epoch=1", "warmup=1", "rounds=2"),
)


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "few.npz", X=rng.normal(size=(20, 1, 40)), y=np.arange(20) % 2, split=np.zeros(20, int))
    return f"data.path={tmp_path / 'few.npz'}"


def test_the_numbers_are_shown_and_written_and_nothing_else_is_left(data, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["overhead", "data=npz", data, *SMALL, "start=false", "output=numbers.json"])
    report = json.loads((tmp_path / "numbers.json").read_text())
    assert report["rounds"] == 2
    assert 0 < report["ratio_min"] <= report["ratio"] <= report["ratio_max"]
    assert report["train_epoch_s"] <= report["whole_epoch_s"]
    assert report["data_bytes"] == 20 * 40 * 4
    assert "first_step_s" not in report
    assert "bare loop" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.npz", "numbers.json"]


def test_the_bare_loop_trains_on_every_batch(compose, data, monkeypatch) -> None:
    options = compose("data=npz", data, *SMALL[:-2])
    job = prepare.prepare(options)
    module = fitted_module.fitted_module(options, job)[0]
    before = [parameter.detach().clone() for parameter in module.parameters()]
    bare = overhead._BareLoop(module, options, job)
    seen = torch.cat([batch.index for batch in bare.batches])
    assert sorted(seen.tolist()) == job.split.train.tolist()
    assert torch.equal(bare.batches[0].x, SeriesDataset(job.data).__getitems__(seen[:4].tolist()).x)
    # The closed form stands beside the network, and has nothing to learn.
    monkeypatch.setattr(module.mixture, "closed_form_log_probability", None)
    bare.epoch()
    assert any(not torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


def test_a_number_of_rounds_that_cannot_be_is_refused(data, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["overhead", "data=npz", data, "rounds=-2", "warmup=-1"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "rounds=-2" in message
    assert "warmup=-1" in message


@pytest.mark.parametrize("model", ["closed_form", "aeon_quant"])
def test_a_classifier_without_a_network_is_refused(data, capsys, model) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["overhead", "data=npz", data, f"model={model}"])
    assert stopped.value.code == 2
    assert f"model={model}: expected a network" in capsys.readouterr().err


def test_all_epochs_are_timed_though_nothing_is_left_to_learn(data, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    stops = ("callbacks.done.perfect_epochs=1", "callbacks.done.idle_epochs=1", "+trainer.max_steps=1")
    monkeypatch.setattr("krontime.training.done.StopWhenDone.on_validation_end", _stop)
    cli.main(["overhead", "data=npz", data, *SMALL, *stops, "start=false", "output=numbers.json"])
    assert json.loads((tmp_path / "numbers.json").read_text())["rounds"] == 2


def _stop(_callback: object, trainer: pl.Trainer, _module: object) -> None:
    trainer.should_stop = True


@pytest.mark.slow
def test_the_start_is_timed_in_a_process_of_its_own(data, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["overhead", "data=npz", data, *SMALL[:-1], "rounds=0", "output=numbers.json"])
    report = json.loads((tmp_path / "numbers.json").read_text())
    assert report["first_step_s"] > 0
    assert "ratio" not in report


def test_a_file_that_holds_no_numbers_is_not_written_over(tmp_path, capsys):
    (tmp_path / "mine.npz").write_text("mine")
    with pytest.raises(SystemExit):
        cli.main(["overhead", "data=synthetic", f"output={tmp_path / 'mine.npz'}"])
    assert "ends in .json" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "mine.npz").read_text() == "mine"
