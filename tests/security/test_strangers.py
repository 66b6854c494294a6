"""Files from strangers: each of these would run code, or take the machine's memory, and does neither.

Every attack is read in a child process that may take little memory more than it has, so that one that works is a failed
test and not a machine that hangs.
"""

import contextlib
import io
import multiprocessing
import os
import pickle
import resource
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from krontime import cli
from krontime.data.new_series import Reading, read_new
from krontime.data.series import SeriesSpec
from krontime.data.sources.npz import NpzSource
from krontime.errors import UserError
from krontime.runs import load
from krontime.training import build
from krontime.training.module import FORMAT_VERSION

ADDRESS_SPACE = 2**30
"""Bytes that a child may reserve besides what it has; libraries that are loaded late take some."""

RESIDENT = 2**27
"""Bytes that it may come to hold."""

GOOD = {"X": np.ones((4, 1, 9), np.float32), "y": np.array([0, 1, 0, 1]), "split": np.array([0, 0, 1, 1])}


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def in_a_child(read: Callable[[], Any]) -> str:
    """The message of the `UserError` that `read` gives in a process with little memory, or what else came of it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read()
            said = "it was read"
        except UserError as error:
            said = str(error)
        except BaseException:
            said = traceback.format_exc()
        added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        theirs.send(said if added < RESIDENT else f"{said} (and {added:,} bytes were taken)")
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    theirs.close()
    try:
        said = ours.recv()
    except EOFError:
        said = "it was killed"
    process.join()
    assert "bytes were taken" not in said
    assert "MemoryError" not in said
    return said


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """The beginning of an `.npy` file."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def write_npz(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """A container of good arrays and these members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, array in GOOD.items():
            if f"{key}.npy" not in members:
                buffer = io.BytesIO()
                np.save(buffer, array)
                archive.writestr(f"{key}.npy", buffer.getvalue())
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def checkpoint(compose) -> dict[str, Any]:
    """What a checkpoint of a tiny model holds."""
    spec = {"num_channels": 1, "length": 40, "num_classes": 2, "class_names": ["a", "b"]}
    config = compose(
        "model.d_model=8",
        "model.num_heads=2",
        "model.num_layers=1",
        "tokenizer=linear",
        "data.name=x",
        "closed_form=none",
    )
    module = build.build_module(config, SeriesSpec(**{**spec, "class_names": ("a", "b")}))
    about = {"format_version": FORMAT_VERSION, "world_size": 1, "config": config, "spec": spec, "masked": False}
    return {"state_dict": module.state_dict(), "krontime": about}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Any], Path]:
    """A run's folder with this as its checkpoint."""

    def write(content: Any) -> Path:
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        torch.save(content, tmp_path / "run" / "checkpoints" / "best.ckpt")
        return tmp_path / "run"

    return write


def test_the_good_files_are_read(tmp_path, run, checkpoint):
    """Else the tests below would show nothing."""
    path = write_npz(tmp_path / "good.npz", {}, zipfile.ZIP_DEFLATED)
    assert in_a_child(lambda: NpzSource(str(path)).load()) == "it was read"
    folder = run(checkpoint)
    assert in_a_child(lambda: load.load_run(folder)) == "it was read"


def test_the_trap_springs(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path, run, checkpoint):
    folder = run({**checkpoint, "more": Trap(tmp_path / "ran")})
    assert "it names __builtin__.getattr" in in_a_child(lambda: load.load_run(folder))
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_is_a_bare_pickle_is_not_run(tmp_path, run):
    folder = run({})
    (folder / "checkpoints" / "best.ckpt").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    assert "not a readable checkpoint" in in_a_child(lambda: load.load_run(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["X", "y", "classes", "group"])
def test_a_pickle_in_an_object_array_is_not_run(tmp_path, key):
    content = header((4,), "|O") + pickle.dumps([Trap(tmp_path / "ran")] * 4)
    path = write_npz(tmp_path / "set.npz", {f"{key}.npy": content})
    assert "never loaded" in in_a_child(lambda: NpzSource(str(path)).load())
    (tmp_path / "new.npy").write_bytes(content)
    assert "never loaded" in in_a_child(lambda: read_new(tmp_path / "new.npy", Reading(), ("a", "b")))
    assert not (tmp_path / "ran").exists()


ALIASES = (
    "os.system",
    "krontime.data.sources.npz.np.load",
    "krontime.data.sources.ucr.shutil.rmtree",
    "krontime.data.sources.ucr.os.system",
    "krontime.models.krontime.torch.load",
    "torch.optim.lr_scheduler.types.FunctionType",
    "lightning.pytorch.callbacks.model_checkpoint.os.system",
    "lightning.pytorch.loggers.csv_logs.os.path.os.system",
)


@pytest.mark.parametrize("target", ALIASES)
def test_a_target_of_a_config_is_no_way_to_code_by_an_alias(tmp_path, run, checkpoint, target, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", f"data.source._target_={target}", f"+data.source.command='touch {tmp_path}/ran'"])
    assert stopped.value.code == 2
    assert f"data.source._target_='{target}'" in capsys.readouterr().err
    about = checkpoint["krontime"]
    hostile = {**about["config"], "model": {"_target_": target, "name": "x", "command": f"touch {tmp_path}/ran"}}
    folder = run({**checkpoint, "krontime": {**about, "config": hostile}})
    assert f"_target_='{target}'" in in_a_child(lambda: load.load_run(folder))
    assert not (tmp_path / "ran").exists()


def test_members_of_an_archive_stay_in_it(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    names = ("../../escaped.npy", f"{tmp_path}/escaped.npy", "../X.npy", "X.npy/../../y.npy")
    path = write_npz(tmp_path / "a" / "b" / "set.npz", dict.fromkeys(names, header((0,))))
    before = sorted(tmp_path.rglob("*"))
    with contextlib.chdir(tmp_path / "a" / "b"):
        assert in_a_child(lambda: NpzSource(str(path)).load()) == "it was read"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_decompression_bomb_is_not_inflated(tmp_path, method):
    num_points = 3 * 2**25  # 403 MB
    path = tmp_path / "set.npz"
    write_npz(path, {}, method)
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != "X.npy"}
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for name, content in kept.items():
            archive.writestr(name, content)
        with archive.open("X.npy", "w", force_zip64=True) as member:
            member.write(header((4, 1, num_points // 4)))
            for _ in range(num_points // 2**18 if method == zipfile.ZIP_DEFLATED else 1):
                member.write(bytes(2**20))
    said = in_a_child(lambda: NpzSource(str(path)).load())
    assert ("to inflate to 402," if method == zipfile.ZIP_DEFLATED else "in another way than NumPy's") in said


@pytest.mark.parametrize("shape", [(2**40,), (1, 2**40), (2**20, 2**20, 2**20), (2**40, 0), (2**70, 1, 1), (-1, -1)])
def test_a_header_that_declares_more_than_there_is_takes_nothing(tmp_path, shape):
    content = header(shape) + bytes(64)
    path = write_npz(tmp_path / "set.npz", {"X.npy": content})
    assert "its header declares the shape" in in_a_child(lambda: NpzSource(str(path)).load())
    (tmp_path / "new.npy").write_bytes(content)
    assert "its header declares the shape" in in_a_child(lambda: read_new(tmp_path / "new.npy", Reading(), ("a",)))


def test_a_header_that_declares_to_be_long_takes_nothing(tmp_path):
    content = b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b"{" * 2**20
    path = write_npz(tmp_path / "set.npz", {"X.npy": content}, zipfile.ZIP_DEFLATED)
    assert "X cannot be read" in in_a_child(lambda: NpzSource(str(path)).load())


def test_a_file_of_holes_is_held_against_the_memory(tmp_path):
    """Its size is what the header says, and nothing of it is on the disk."""
    path = tmp_path / "new.npy"
    begin = header((1, 2**38), "|i1")
    path.write_bytes(begin)
    try:
        os.truncate(path, len(begin) + 2**38)
    except OSError:
        pytest.skip("the file system has no files of this size")
    assert "GiB of memory" in in_a_child(lambda: read_new(path, Reading(), ("a",)))


def test_a_checkpoint_that_asks_for_memory_gets_none(tmp_path, run, checkpoint):
    class Bytes:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return bytearray, (2**32,)

    folder = run({**checkpoint, "more": Bytes()})
    assert "it names __builtin__.bytearray" in in_a_child(lambda: load.load_run(folder))


def test_a_compressed_checkpoint_is_not_inflated(tmp_path, run, checkpoint):
    folder = run(checkpoint)
    path = folder / "checkpoints" / "best.ckpt"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "it is compressed" in in_a_child(lambda: load.load_run(folder))


def test_containers_that_hold_each_other_are_not_followed(tmp_path, run, checkpoint):
    nested: list[Any] = ["ha"]
    for _ in range(40):
        nested = [nested, nested]
    about = checkpoint["krontime"]
    folder = run({**checkpoint, "krontime": {**about, "config": {**about["config"], "seed": nested}}})
    assert "hold each other" in in_a_child(lambda: load.load_run(folder))


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("model", "d_model", 2**22),
        ("model", "ffn_dim", 2**40),
        ("model", "num_layers", 10**9),
        ("spec", "length", 2**40),
        ("spec", "num_classes", 2**40),
    ],
)
def test_a_checkpoint_of_sizes_that_its_weights_have_not_builds_nothing(tmp_path, run, checkpoint, part, key, value):
    about = checkpoint["krontime"]
    if part == "spec":
        hostile = {**about, "spec": {**about["spec"], key: value}}
    else:
        hostile = {**about, "config": {**about["config"], part: {**about["config"][part], key: value}}}
    folder = run({**checkpoint, "krontime": hostile})
    said = in_a_child(lambda: load.load_run(folder))
    assert "best.ckpt: " in said
    assert "Traceback" not in said


def test_a_checkpoint_of_many_parts_builds_none(run, checkpoint, compose):
    """Waves of thousands of points are in no file, so that weights of a few MB could ask for all memory."""
    about = checkpoint["krontime"]
    closed_form = compose()["closed_form"]
    many = {**closed_form, "parts": {f"p{i}": closed_form["parts"]["spectra"] for i in range(17)}}
    folder = run({**checkpoint, "krontime": {**about, "config": {**about["config"], "closed_form": many}}})
    said = in_a_child(lambda: load.load_run(folder))
    assert "best.ckpt: closed_form.parts=['p0', " in said
    assert said.endswith("expected 1 to 16")
