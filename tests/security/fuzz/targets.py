"""What is fuzzed: good files to start from, and what is done with each broken one of them."""

import contextlib
import io
import json
import shutil
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from krontime import cli
from krontime.commands import COMMANDS
from krontime.config import resolve, schema
from krontime.config.identity import config_hash
from krontime.config.targets import naming_keys
from krontime.console import EXIT_USER_ERROR
from krontime.data.new_series import Reading, read_new
from krontime.data.prepare import Prepare
from krontime.data.series import SeriesSpec
from krontime.data.sources.audio import AudioSource
from krontime.data.sources.npz import NpzSource
from krontime.data.sources.table import TableSource
from krontime.data.sources.ts import TsSource
from krontime.data.split import split_indices
from krontime.errors import UserError
from krontime.runs import load
from krontime.runs.record import Record
from krontime.runs.record_migration import SCHEMA_VERSION
from krontime.training import build
from krontime.training.module import FORMAT_VERSION
from tests.security.fuzz import mutate

VALIDATION: dict[str, Any] = {"method": "auto", "fraction": 0.2, "num_folds": 5, "fold": 0}
CLASSES = ("a", "b")
TS = "@problemName x\n@timestamps false\n@univariate {}\n@equalLength {}\n@classLabel {}\n@data\n{}"


@dataclass(frozen=True)
class Target:
    """Good inputs, how to break one, and what is done with it (`UserError` is the one error that may come out)."""

    name: str
    suffix: str
    seeds: Callable[[], list[bytes]]
    mutate: mutate.Mutate
    run: Callable[[Path], Any]
    per_turn: int = 20
    """Inputs in a row: fewer where each takes long."""


def _npz() -> list[bytes]:
    rng = np.random.default_rng(0)
    y, split = np.arange(8) % 2, np.repeat([0, 1], [6, 2])
    files: list[dict[str, Any]] = [
        {"X": rng.standard_normal((8, 2, 9)), "y": y, "split": split, "fs": 50.0, "group": np.arange(8) // 2},
        {"X": rng.integers(0, 9, (8, 9)).astype(np.int16), "y": np.array(CLASSES)[y], "split": split, "scale": 0.5},
        {"X_flat": np.ones((2, 20), np.float32), "offsets": np.array([0, 1, 3, 6, 9, 12, 15, 18, 20]), "y": y}
        | {"split": split, "classes": np.array(CLASSES), "scale": np.ones(2)},
    ]
    out = []
    for number, arrays in enumerate(files):
        buffer = io.BytesIO()
        (np.savez_compressed if number == 1 else np.savez)(buffer, **arrays)
        out.append(buffer.getvalue())
    return out


def _npy() -> list[bytes]:
    out = []
    for array in (
        np.ones((3, 9), np.float32),
        np.arange(12, dtype=np.int16).reshape(2, 2, 3),
        np.ones((2, 4), ">f8").T,
    ):
        buffer = io.BytesIO()
        np.save(buffer, array)
        out.append(buffer.getvalue())
    return out


def _ts() -> list[bytes]:
    files = [
        TS.format("true", "true", "true a b", "1,2,3:a\n4,?,6:b\n7,8,9:a\n1,1,2:b\n"),
        TS.format("false", "false", "true A b", "1,2:3,4:A\n4:5:b\n7,8:9,NaN:A\n-1,1e-3:0,2:b\n"),
        TS.format("true", "true", "false", "1,2,3\n4,5,6\n"),
    ]
    return [text.encode() for text in files]


def _table(separator: str) -> list[bytes]:
    files = [
        "label,t0,t1,t2\na,1,2,3\nb,4,,6\na,7,8\nb,-1,1e3,?\n",
        "1,2,3\n4,5,6\n",
        't0,"t1",y\n1,"2","a"\n3,4,b\n5,6,"a b"\n7,8,b\n',
    ]
    return [text.replace(",", separator).encode() for text in files]


def _wav() -> list[bytes]:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(range(200)))
    return [buffer.getvalue()]


def _record() -> list[bytes]:
    config = {"seed": 0, "model": {"name": "tcn", "depth": 2}, "trainer": {"max_epochs": 5}, "paths": {"data": "/d"}}
    protocol = {
        "data_sha256": "ab" * 32,
        "split_method": "stratified",
        "split_seed": 0,
        "num_train": 8,
        "num_val": 2,
        "num_test": 4,
        "train_class_counts": {"a": 4, "b": 4},
        "selection_metric": "val/nll",
        "scaling": "series",
    }
    fields = {
        "schema_version": SCHEMA_VERSION,
        "status": "completed",
        "model": "tcn",
        "data": "x",
        "seed": 0,
        "config": config,
        "config_hash": config_hash(config),
        "protocol": protocol,
        "metrics": {"val": {"nll": 0.25}, "test": {"accuracy": 0.5, "auroc": None}},
        "num_parameters": 12,
        "train_time_s": 1.5,
        "inference_ms_per_series": 0.5,
        "peak_memory_bytes": 10,
        "device": {"kind": "cpu", "name": "x", "num_threads": 2, "platform": "Linux"},
        "versions": {"python": "3.11"},
        "git": None,
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:05:05Z",
    }
    text = Record.model_validate_json(json.dumps(fields)).model_dump_json()
    failed = {"status": "failed", "error": "broke", "protocol": None, "metrics": {"val": {}, "test": {}}}
    failed = {**fields, **failed, "schema_version": 2}  # which is brought to the present one
    return [text.encode(), json.dumps(failed).encode()]


def _plain_config(*overrides: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    from krontime.config.files import config_dir

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return resolve.plain(compose("train", list(overrides)))


def _checkpoint() -> list[bytes]:
    spec = SeriesSpec(num_channels=2, length=40, num_classes=2, class_names=CLASSES)
    out = []
    for overrides in (
        ("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "tokenizer=linear"),
        ("model=tcn",),
    ):
        config = _plain_config("data.name=x", "paths.cache=c", *overrides)
        about = {"config": config, "spec": {**spec.__dict__, "class_names": list(CLASSES)}, "masked": False}
        module = build.build_module(config, spec, about=about)
        buffer = io.BytesIO()
        torch.save(
            {
                "state_dict": module.state_dict(),
                "krontime": {"format_version": FORMAT_VERSION, "world_size": 1, **about},
            },
            buffer,
        )
        out.append(buffer.getvalue())
    return out


def mutate_checkpoint(rng: np.random.Generator, data: bytes) -> bytes:
    """Another value somewhere in its config, sizes or weights; or a changed archive."""
    if rng.random() < 0.4:
        return mutate.of_archive(mutate.of_bytes)(rng, data)
    try:
        content = torch.load(io.BytesIO(data), weights_only=True)
    except Exception:  # a broken one from the corpus
        return mutate.of_bytes(rng, data)
    about = mutate.changed_value(rng, content.get("krontime"))
    weights = dict(content["state_dict"])
    if rng.random() < 0.3:
        weights[str(rng.choice(sorted(weights)))] = torch.ones(2)
    buffer = io.BytesIO()
    torch.save({"state_dict": weights, "krontime": about}, buffer)
    return buffer.getvalue()


def _command_lines() -> list[bytes]:
    lines = (
        "train\0model=tcn\0seed=1",
        "train\0data=npz\0data.path=x.npz\0trainer.max_epochs=2\0model.d_model=8",
        "train\0decomposition=sizes\0decomposition.sizes=[4,4]\0tokenizer=conv\0+model.dropout=0.1",
        "train\0-m\0seed=0,1\0optim.optimizer.lr=0.1,0.2\0logger=[csv]",
        "train\0callbacks.checkpoint.monitor=val/accuracy\0data.window.length=9\0'data.name=a b'\0~logger",
        "train\0data.source._target_=os.system\0hydra.job.name=${oc.env:HOME}\0hydra/launcher=basic",
    )
    return [line.encode() for line in lines]


def checked(config: Any) -> None:
    """What `krontime train` does before it reads anything."""
    schema.check_train(resolve.plain(config), is_multirun=False)


def _read_both(source: type[Any]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with contextlib.suppress(UserError):
            data = Prepare(crop_length=7).apply(source(str(path)).load())
            with naming_keys(VALIDATION, "data.validation"):
                split_indices(data, **VALIDATION)
        read_new(path, Reading(), CLASSES)

    return run


def _read_recording(path: Path) -> None:
    for label in CLASSES:
        (path.parent / label).mkdir()
        shutil.copy(path, path.parent / label)
    AudioSource(str(path.parent)).load()


def _load_checkpoint(path: Path) -> None:
    folder = path.parent / "run" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path.rename(folder / "best.ckpt")
    load.load_run(folder.parent)


def _command_line(path: Path) -> None:
    """Any command but those that would find nothing to read; a command that is right ends after its checks."""
    arguments = path.read_bytes().decode("utf-8", "replace").split("\0")
    commands = dict(COMMANDS)
    COMMANDS["train"] = ("tests.security.fuzz.targets:checked", "check")
    sys.argv = ["krontime"]
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as screen,
            contextlib.chdir(path.parent),
        ):
            cli.main(["train", *arguments[1:]])
    except SystemExit as stopped:
        if stopped.code == EXIT_USER_ERROR and "Traceback" not in screen.getvalue():
            raise UserError(screen.getvalue()) from None
        if stopped.code:  # Hydra's own options, such as --version, end with 0
            raise AssertionError(f"exit code {stopped.code}: {screen.getvalue()[-500:]}") from None
    finally:
        COMMANDS.update(commands)


TARGETS = {
    target.name: target
    for target in (
        Target("npz", ".npz", _npz, mutate.of_archive(mutate.of_npy), _read_both(NpzSource)),
        Target("npy", ".npy", _npy, mutate.of_npy, lambda path: read_new(path, Reading(), CLASSES)),
        Target("ts", ".ts", _ts, mutate.of_text, _read_both(TsSource)),
        Target("csv", ".csv", lambda: _table(","), mutate.of_text, _read_both(TableSource)),
        Target("tsv", ".tsv", lambda: _table("\t"), mutate.of_text, _read_both(TableSource)),
        Target("wav", ".wav", _wav, mutate.of_bytes, _read_recording),
        Target("record", ".json", _record, mutate.of_json, Record.read),
        Target("checkpoint", ".ckpt", _checkpoint, mutate_checkpoint, _load_checkpoint, per_turn=5),
        Target("command_line", ".txt", _command_lines, mutate.of_command_line, _command_line, per_turn=1),
    )
}
