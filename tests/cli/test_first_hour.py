"""What a new user gets wrong: each mistake ends with exit code 2 and a message that says what would be right."""

import contextlib
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from krontime import cli
from tests.cli.run.small import CLOSED_FORM

SMALL = (
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *CLOSED_FORM,
    *("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "optim.min_batches_per_epoch=1"),
)


@dataclass(frozen=True)
class Mistake:
    """A command line, where `{site}` is the folder of files, and what its message has to name."""

    command: str
    says: tuple[str, ...]


def train(overrides: str, *says: str) -> Mistake:
    """A run on good data, but for these overrides."""
    return Mistake(f"train data=npz data.path={{site}}/good.npz {overrides}", says)


def npz(name: str, *says: str) -> Mistake:
    return Mistake(f"train data=npz data.path={{site}}/{name}.npz", (f"{name}.npz", *says))


def ts(name: str, *says: str) -> Mistake:
    return Mistake(f"train data=ts data.train={{site}}/{name}.ts", (f"{name}.ts", *says))


def predict(overrides: str, *says: str) -> Mistake:
    given = {"run": "{site}/run", "input": "{site}/good.npz", "output": "out.csv"}
    for override in overrides.split():
        key, _, value = override.partition("=")
        given[key] = value
    return Mistake("predict " + " ".join(f"{key}={value}" for key, value in given.items()), says)


MISTAKES = {
    # names
    "command": Mistake("trian", ("'trian'", "did you mean train?")),
    "option": Mistake("train --seed=3", ("--seed=3", "such as seed=3")),
    "no value": Mistake("train epochs", ("epochs", "expected key=value")),
    "run without its key": Mistake("evaluate outputs/mine", ("such as run=outputs/mine",)),
    "path without its key": Mistake(
        "train {site}/good.npz seed=1", ("good.npz: expected key=value, such as data.path=/",)
    ),
    "file for a choice": Mistake("train data={site}/good.npz", ("files of your own are given as data.path=/",)),
    "choice": train("model=tnc", "model=tnc", "krontime, patchtst, s4d, tcn", "did you mean tcn?"),
    "choice of nothing": train("optim=null", "optim=null", "adamw"),
    "group": train("modle=tcn", "modle", "did you mean model?"),
    "key": train("data.batch_siz=3", "data.batch_siz=3", "did you mean data.batch_size?"),
    "key of another group": train("lr=0.1", "lr=0.1", "did you mean optim.optimizer.lr?"),
    "key of a value": train("seed.x=1", "seed.x=1", "seed is one value"),
    "nested group": train("decomposition=depth9", "decomposition=depth9", "depth1, depth2"),
    "one of several loggers": train("logger=[csv,foo]", "logger=[csv,foo]", "csv, tensorboard, wandb"),
    "several": train(
        "model=tnc seed.x=1 data.batch_siz=3 trainer=gqu", "did you mean tcn", "seed.x", "data.batch_size?", "gpu"
    ),
    "list without a sweep": train("seed=0,1", "seed=0,1", "add -m", "seed=[0,1]"),
    "list that does not end": train("model.level_sizes=[2,3", "[2,3", "cannot be read"),
    "added key": train("+foo=1", "foo=1", "no such key"),
    "added key of the data": train("+data.foo=1", "data.foo=1", "has no effect"),
    "added key of the trainer": train("+trainer.max_epoch=1", "trainer.max_epoch=1", "trainer.max_epochs?"),
    "added key of the model": train("+model.width=1", "model.width=1", "KronTime has no argument width"),
    "added key of the optimiser": train("+optim.optimizer.rate=1", "optim.optimizer.rate=1", "no argument rate"),
    "misspelt in a sweep": train("-m model=tcn,patchts", "patchts", "did you mean patchtst?"),
    # types and ranges
    "word for a number": train("seed=x", "seed='x'", "a whole number"),
    "switch for a number": train("seed=true", "seed=True", "a whole number"),
    "fraction for a count": train("trainer.max_epochs=2.5", "trainer.max_epochs=2.5", "a whole number"),
    "word for a switch": train("force=maybe", "force='maybe'", "true or false"),
    "several values": train(
        "data.batch_size=0 optim.optimizer.lr=fast augment.shift=2 loss.class_weights=some",
        *("data.batch_size=0: expected at least 1", "optim.optimizer.lr='fast': expected a number"),
        *("augment.shift=2: expected at most 1", "loss.class_weights='some': expected 'none', 'balanced' or 'sampled'"),
    ),
    "negative learning rate": train("optim.optimizer.lr=-1", "optim.optimizer.lr=-1", "greater than 0"),
    "word for a width": train("model.d_model=wide", "model.d_model='wide'", "a whole number"),
    "several in the model": train("model.d_model=wide model.dropout=low", "model.d_model", "model.dropout='low'"),
    "number format": train("trainer.precision=float32", "trainer.precision='float32'", "32-true"),
    "no devices": train("trainer.devices=0", "trainer.devices=0", "at least 1"),
    "strategy": train("trainer.strategy=magic", "strategy='magic'", "ddp"),
    "gradient clipping": train("trainer.gradient_clip_val=-1", "gradient_clip_val=-1", "at least 0"),
    "validation never": train("+trainer.check_val_every_n_epoch=0", "check_val_every_n_epoch=0", "at least 1"),
    "what a run sets itself": train("+trainer.num_sanity_val_steps=3", "num_sanity_val_steps=3", "set by krontime"),
    "another folder of Lightning's": train(
        "+trainer.default_root_dir=x", "default_root_dir='x'", "paths.output=FOLDER"
    ),
    "callbacks of Lightning's own key": train("+trainer.callbacks=[]", "trainer.callbacks=[]", "callbacks=GROUP"),
    "accumulation": train("trainer.accumulate_grad_batches=0", "accumulate_grad_batches=0", "at least 1"),
    # models
    "heads": train("model.num_heads=3", "model.num_heads=3", "a divisor of d_model=8"),
    "no layers": train("model.num_layers=0", "model.num_layers=0", "at least 1"),
    "attention": train("model.attention=quadratic", "'quadratic'", "kronecker"),
    "depth": train("decomposition.depth=0", "decomposition.depth=0", "at least 1"),
    "sizes missing": train("decomposition=sizes", "decomposition.sizes", "expected a value"),
    "sizes too small": train(
        "decomposition=sizes decomposition.sizes=[2,2]", "decomposition.sizes=[2, 2]", "the number of tokens"
    ),
    "size zero": train("decomposition=sizes decomposition.sizes=[0,9]", "[0, 9]", "at least 1"),
    "size alone": train("decomposition=sizes decomposition.sizes=9", "decomposition.sizes=9", "a list"),
    "depth and sizes": train("decomposition.sizes=[9,9]", "decomposition", "not both"),
    "decomposition of a model without": train("model=tcn decomposition=depth3", "decomposition=depth3", "no effect"),
    "tokenizer of a model without": train("model=tcn tokenizer=conv", "tokenizer=conv", "no effect"),
    "stride": train("tokenizer.stride=99", "tokenizer.stride=99", "1 to patch_length=16"),
    "patch of nothing": train("tokenizer.patch_length=0", "tokenizer.patch_length=0", "at least 1"),
    "even kernel": train("tokenizer=conv tokenizer.kernel_size=4", "tokenizer.kernel_size=4", "odd"),
    "no dilations": train("tokenizer=rocket tokenizer.num_dilations=0", "tokenizer.num_dilations=0", "at least 1"),
    "kernel of one point": Mistake(
        "train data=npz data.path={site}/good.npz model=tcn model.kernel_size=1", ("model.kernel_size=1", "at least 2")
    ),
    # selection
    "monitor": train("callbacks.checkpoint.monitor=val/acc", "monitor='val/acc'", "val/accuracy"),
    "monitor the test split": train(
        "callbacks.early_stopping.monitor=test/accuracy", "monitor='test/accuracy'", "val/accuracy"
    ),
    "the worst checkpoint": train(
        "callbacks.checkpoint.monitor=val/accuracy", "callbacks.checkpoint.mode='min'", "expected max"
    ),
    "patience": train("callbacks.early_stopping.patience=-1", "patience=-1", "0 or more"),
    "checkpoint in the place of the last": train("callbacks.checkpoint.filename=last", "='last'", "always written"),
    "checkpoints every zero steps": train("checkpoint_every_n_steps=0", "checkpoint_every_n_steps=0", "at least 1"),
    "checkpoint under another name": train("callbacks.checkpoint.filename=x", "filename='x'", "'best'"),
    # data
    "no file given": Mistake("train data=npz", ("data.path", "expected a value")),
    "misspelt file": npz("god", "data.path", "there is no such file", "good.npz"),
    "folder for a file": Mistake("train data=npz data.path={site}", ("data.path", "is a folder")),
    "no container": npz("text", "container"),
    "no labels": npz("no_labels", "y (labels)"),
    "labels of another number": npz("short_labels", "y has shape (11,)", "(12,)"),
    "no series": npz("empty", "there is no series"),
    "one class": npz("one_class", "'0'", "at least two classes"),
    "class of the test split alone": npz("unseen", "class '2'", "no training series"),
    "nothing to train on": npz("all_test", "training series"),
    "Python objects": npz("objects", "Python objects"),
    "infinite values": npz("infinite", "series 3", "infinite"),
    "another split": npz("thirds", "split holds 2", "0 (train) or 1 (test)"),
    "four dimensions": npz("deep", "(series, channels, time points)"),
    "everything missing": npz("missing", "all values are missing"),
    "no groups": train("data.validation.method=group", "data.validation.method='group'", "no groups"),
    "fold that is not there": train("data.validation.method=kfold data.validation.fold=5", "fold=5", "0 to 4"),
    "fold of no folds": train("data.validation.fold=1", "fold=1", "method=kfold"),
    "all to validation": train("data.validation.fraction=0.99", "data.validation.fraction=0.99", "a smaller one"),
    "rate that is not known": train("data.prepare.resample_hz=50", "data.prepare.resample_hz=50", "fs"),
    "two new lengths": train(
        "data.prepare.resample_hz=50 data.prepare.resample_length=50", "resample_length=50", "expected null"
    ),
    "windows with gaps": train("data.window.length=8 data.window.stride=9", "stride=9", "length=8"),
    "stride of no windows": train("data.window.stride=9", "stride", "length"),
    "name with a folder": train("data.name=a/b", "data.name='a/b'", "without /"),
    "archive name": Mistake("train data.name=ACSF2", ("data.name='ACSF2'", "ACSF1")),
    "missing .ts": ts("nowhere", "data.train", "no such file"),
    "no .ts": ts("text", "@data"),
    "time stamps": ts("stamped", "time"),
    ".ts without classes": ts("unlabelled", "@classLabel"),
    "cache that is a file": train("paths.cache={site}/good.npz", "paths.cache", "writable folder"),
    "output that is a file": train("paths.output={site}/good.npz", "good.npz", "paths.output=FOLDER"),
    # machine and safety
    "no GPU": train("trainer=gpu", "trainer.accelerator='gpu'", "none on this machine"),
    "no GPU to evaluate on": Mistake("evaluate run={site}/run accelerator=gpu", ("accelerator='gpu'", "cpu")),
    "accelerator": Mistake("evaluate run={site}/run accelerator=abacus", ("accelerator='abacus'", "cpu")),
    "any code": train("data.source._target_=os.system", "data.source._target_='os.system'", "a class from"),
    "code in a callback": train(
        "+callbacks.mine._target_=subprocess.Popen", "callbacks.mine._target_='subprocess.Popen'", "a class from"
    ),
    "several devices in one process": train("-m seed=0,1 trainer=ddp_cpu", "trainer.devices=2", "one command"),
    # runs
    "no run": Mistake("evaluate", ("run", "expected a value")),
    "run nowhere": Mistake("evaluate run=nowhere", ("run='nowhere'", "no such folder", "folder of a finished run")),
    "folder of no run": Mistake("evaluate run={site}", ("run=", "folder of a finished run")),
    "damaged checkpoint": Mistake("evaluate run={site}/damaged", ("best.ckpt", "not a readable checkpoint")),
    "pickle in a checkpoint": Mistake("evaluate run={site}/hostile", ("best.ckpt", "not a readable checkpoint")),
    "someone's checkpoint": Mistake("evaluate run={site}/foreign", ("best.ckpt", "not a checkpoint of krontime")),
    # new files
    "other channels": predict("input={site}/channels.npy", "channels.npy", "1 channels, found 2"),
    "longer than in training": predict("input={site}/long.npy", "long.npy", "at most 60 points", "61"),
    "kind of input": predict("input={site}/picture.png", "picture.png", ".csv"),
    "no input": predict("input={site}/nowhere.npz", "nowhere.npz", "no such file"),
    "empty input": predict("input={site}/empty.csv", "empty.csv", "there is no series"),
    "words for values": predict("input={site}/words.csv", "words.csv", "'high'", "expected a number"),
    "split of a table": predict("input={site}/good.csv split=test", "split='test'", "expected all"),
    "kind of output": predict("output=out.xlsx", "out.xlsx", ".csv or .parquet"),
    "output that exists": predict("output={site}/kept.csv", "kept.csv", "force=true"),
    "output onto the input": predict("input={site}/good.csv output={site}/good.csv force=true", "another file"),
    "no rate": predict("sampling_rate_hz=0", "sampling_rate_hz=0", "above 0"),
    "word for a rate": predict("sampling_rate_hz=fast", "sampling_rate_hz='fast'", "a number"),
    "word for force": predict("force=yes!", "force='yes!'", "true or false"),
    "several of a prediction": predict(
        "run=nowhere input={site}/nowhere.npz output=out.xlsx", "run='nowhere'", "nowhere.npz", "out.xlsx"
    ),
    # other commands
    "word for the seed of the split": Mistake("data data=synthetic seed=x", ("seed='x'", "a whole number")),
    "word for a share": Mistake(
        "data data=synthetic data.validation.fraction=x", ("data.validation.fraction='x'", "a number")
    ),
    "added key of the preparation": Mistake(
        "data data=synthetic +data.prepare.foo=1", ("data.prepare.foo=1", "no such")
    ),
    "added key of the preparation to plan": Mistake(
        "plan data=synthetic +data.prepare.foo=1", ("data.prepare.foo=1", "no such key")
    ),
    "added key of the source": Mistake("data data=synthetic +data.source.x=1", ("data.source.x=1", "no argument x")),
    "added key of the source to plan": Mistake(
        "plan data=synthetic data.source.length=x", ("data.source.length='x'", "a whole number")
    ),
    "added key of the data to look at": Mistake("data data=synthetic +data.foo=1", ("data.foo=1", "has no effect")),
    "added key to plan": Mistake("plan length=99 +foo=1", ("foo=1", "no such key")),
    "several to plan": Mistake(
        "plan num_channels=0 batch_size=x", ("num_channels=0", "at least 1", "batch_size='x'", "data=NAME")
    ),
    "no output": train("paths.output=null", "paths.output=None", "text"),
    "no cache": train("paths.cache=null", "paths.cache=None", "text"),
    "no cache to look at": Mistake("data data=synthetic paths.cache=null", ("paths.cache=None", "text")),
    "no cache to plan": Mistake("plan data=synthetic paths.cache=null", ("paths.cache=None", "text")),
    "source that lacks arguments": train("+data.source._partial_=true", "data.source._partial_=True", "no such key"),
    "model that lacks arguments": train("+model._partial_=true", "model._partial_=True", "no such key"),
    "labels that are no text": npz("latin", "b'caf\\xe9'", "UTF-8"),
    "model's name with a folder": train("model.name=a/b", "model.name='a/b'", "without /"),
    "picture in no folder": Mistake("data data=synthetic plot=nowhere/x.png", ("plot='nowhere/x.png'", "exists")),
    "plan of no length": Mistake("plan", ("length", "data=NAME")),
    "plan of two lengths": Mistake("plan data=npz data.path={site}/good.npz length=99", ("length=99", "null")),
    "plan of a wrong model": Mistake("plan length=99 model.d_model=wide", ("model.d_model='wide'", "a whole number")),
    "picture of no data": Mistake("data plot=x.png", ("plot='x.png'", "data=NAME")),
    "kind of picture": Mistake("data data=npz data.path={site}/good.npz plot=x.jpg", ("plot='x.jpg'", ".png")),
}


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.path, "executed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad files, and a finished run."""
    site = tmp_path_factory.mktemp("site")
    rng = np.random.default_rng(0)
    x, y, split = rng.standard_normal((12, 1, 60)).astype(np.float32), np.arange(12) % 2, np.repeat([0, 1], [8, 4])
    infinite = x.copy()
    infinite[3, 0, 7] = np.inf
    for name, arrays in {
        "good": {},
        "no_labels": {"y": None},
        "short_labels": {"y": y[:11]},
        "empty": {"X": x[:0], "y": y[:0], "split": split[:0]},
        "one_class": {"y": y * 0},
        "unseen": {"y": np.where(np.arange(12) == 11, 2, y)},
        "all_test": {"split": np.ones(12, int)},
        "objects": {"y": y.astype(object)},
        "infinite": {"X": infinite},
        "thirds": {"split": np.arange(12) % 3},
        "deep": {"X": x[..., None]},
        "missing": {"X": x * np.nan},
        "latin": {"y": np.where(y == 1, b"caf\xe9", b"tea")},
    }.items():
        kept = {key: value for key, value in {"X": x, "y": y, "split": split, **arrays}.items() if value is not None}
        np.savez(site / f"{name}.npz", allow_pickle=True, **kept)
    (site / "text.npz").write_text("no zip")
    (site / "text.ts").write_text("no series\n")
    head = "@problemName x\n@univariate true\n"
    (site / "stamped.ts").write_text(f"{head}@timeStamps true\n@classLabel true a b\n@data\n(0,1),(1,2):a\n")
    (site / "unlabelled.ts").write_text(f"{head}@timeStamps false\n@classLabel false\n@data\n1,2,3\n")
    np.save(site / "channels.npy", rng.standard_normal((3, 2, 60)))
    np.save(site / "long.npy", rng.standard_normal((3, 61)))
    (site / "picture.png").write_bytes(b"\x89PNG")
    (site / "empty.csv").write_text("")
    (site / "good.csv").write_text("1,2,3\n4,5,6\n")
    (site / "words.csv").write_text("1,2,3\n4,high,6\n")
    (site / "kept.csv").write_text("mine")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(site):
        cli.main(["train", "data=npz", f"data.path={site / 'good.npz'}", *SMALL])
    next((site / "outputs").rglob("record.json")).parent.rename(site / "run")
    good = (site / "run" / "checkpoints" / "best.ckpt").read_bytes()
    for name in ("damaged", "hostile", "foreign"):
        (site / name / "checkpoints").mkdir(parents=True)
        (site / name / "record.json").write_bytes((site / "run" / "record.json").read_bytes())
    (site / "damaged" / "checkpoints" / "best.ckpt").write_bytes(good[: len(good) // 2])
    torch.save({"krontime": Hostile(site / "executed")}, site / "hostile" / "checkpoints" / "best.ckpt")
    torch.save({"state_dict": {}}, site / "foreign" / "checkpoints" / "best.ckpt")
    return site


def files(*folders: Path) -> dict[Path, bytes]:
    """What lies there, without the note that Hydra makes of each sweep."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths if path.name != "multirun.yaml"}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_explained(
    mistake: Mistake,
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = files(site, tmp_path)
    command, *overrides = (word.format(site=site) for word in mistake.command.split())
    small = SMALL if command == "train" and "model=tcn" not in overrides and "model=tnc" not in overrides else ()
    overrides = [*(option for option in small if "data.name=ACSF2" not in overrides), *overrides]
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, *overrides])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert "Traceback" not in captured.err
    assert captured.err.count("krontime: ") >= 1
    for text in mistake.says:
        assert text in captured.err
    assert files(site, tmp_path) == before
    assert [path for path in tmp_path.iterdir() if "-m" not in overrides] == []


def test_the_hostile_file_is_hostile(site: Path) -> None:
    """Else the test above would show nothing."""
    with pytest.raises(pickle.UnpicklingError):
        torch.load(site / "hostile" / "checkpoints" / "best.ckpt", weights_only=True)
    assert not (site / "executed").exists()
    torch.load(site / "hostile" / "checkpoints" / "best.ckpt", weights_only=False)
    assert (site / "executed").read_text() == "executed"
    (site / "executed").unlink()


@pytest.mark.parametrize("network", [("tokenizer=linear",), ("tokenizer=rocket",), ("model=patchtst",), ("model=tcn",)])
def test_series_shorter_than_a_patch_are_no_mistake(network: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y, split = rng.standard_normal((12, 5)), np.arange(12) % 2, np.repeat([0, 1], [8, 4])
    np.savez(tmp_path / "short.npz", X=x, y=y, split=split)
    overrides = ("data=npz", f"data.path={tmp_path / 'short.npz'}", f"paths.output={tmp_path}", *network)
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        cli.main(
            [
                "train",
                *overrides,
                "trainer.max_epochs=1",
                "trainer.enable_progress_bar=false",
                "optim.min_batches_per_epoch=1",
            ]
        )
    assert "completed" in screen.getvalue()
