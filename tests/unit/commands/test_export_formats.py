"""A run as graphs: they answer as the trained module does, anywhere, and a check sees where they do not."""

import contextlib
import csv
import importlib.util
import io
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

import krontime
from krontime import cli
from krontime.commands.export import export
from krontime.errors import UserError
from krontime.models.kernel_ridge.mixture import NetworkMixing
from krontime.runs import load, run
from krontime.runs.exported import card, files, formats, latency, latency_cell
from krontime.runs.exported.parity import Sample
from tests.cli.run.small import CLOSED_FORM

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.usefixtures("quick_plots")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, compose: Callable[..., dict[str, Any]]) -> Path:
    """`data/two.npz` of unequal, incomplete series, a finished run in `run` and all of its formats in `all`."""
    folder = tmp_path_factory.mktemp("formats")
    rng = np.random.default_rng(0)
    y = np.arange(36) % 2
    lengths = np.where(np.arange(36) % 3 == 0, 30, 50)
    series = [
        rng.standard_normal((2, length)).astype(np.float32) + label for length, label in zip(lengths, y, strict=True)
    ]
    series[1][:, 3:5] = np.nan
    (folder / "data").mkdir()
    np.savez(
        folder / "data" / "two.npz",
        X_flat=np.concatenate(series, axis=1),
        offsets=np.concatenate([[0], lengths.cumsum()]),
        y=y,
        split=(np.arange(36) >= 24).astype(int),
        classes=np.array(["ja", "nö"]),
    )
    options = compose(
        *("data=npz", f"paths.data={folder / 'data'}", "data.path=${paths.data}/two.npz", "model=tcn"),
        *("model.channels=4", "model.num_levels=2", "loss.class_weights=balanced"),
        *("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "optim.min_batches_per_epoch=1"),
    )
    run.train_in(options, folder / "run")
    export(OmegaConf.create({"run": str(folder / "run"), "output": str(folder / "all"), "format": "all", "series": 5}))
    return folder


def checked(folder: Path, **options: Any) -> Path:
    return export(OmegaConf.create({"check": str(folder), "series": 3, **options}))


@pytest.fixture
def predict(folder: Path) -> ModuleType:
    """The file that lies beside the graph, imported from there."""
    spec = importlib.util.spec_from_file_location("predict_beside_graph", folder / "all" / "predict.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_folder_is_a_bundle_with_the_formats_beside_it(folder: Path) -> None:
    names = {path.name for path in (folder / "all").iterdir()}
    assert names >= {"model.safetensors", "bundle.json", "model.onnx", "predict.py", "model.pt2", "SHA256SUMS"}
    card = (folder / "all" / "README.md").read_text(encoding="utf-8")
    for text in ("## Formats", "5 test series of", "| onnx | `model.onnx` |", "(batch, 2, length)", "16 to 50 points"):
        assert text in card


def test_the_graph_answers_as_the_model_without_krontime(folder: Path, predict: ModuleType) -> None:
    rng = np.random.default_rng(1)
    X = [rng.standard_normal((2, length)).astype(np.float32) for length in (50, 1, 17, 33)]
    X[2][0] = np.nan
    model, trained = predict.Classifier(folder / "all" / "model.onnx"), krontime.load(folder / "all")
    assert model.classes_.tolist() == ["ja", "nö"]
    np.testing.assert_allclose(model.predict_proba(X, batch_size=3), trained.predict_proba(X, ["length"]), atol=1e-6)
    assert model.predict(X).tolist() == trained.predict(X, ["length"]).tolist()
    assert model.predict_proba([]).shape == (0, 2)


def test_raw_numbers_are_read_as_those_of_training(folder: Path, predict: ModuleType) -> None:
    trained = load.load_run(folder / "run")
    told = {"missing_value": -9.0, "missing_channels": [1], "scale": 0.01}
    config = {**trained.config, "data": {**trained.config["data"], "source": {"_target_": "x", **told}}}
    coded = trained._replace(config=config)
    assert formats.described(coded)["decoding"] == told
    assert "(missing_value=-9.0, missing_channels=[1], scale=0.01)" in card.of_formats(coded, [], Sample([], "none"))
    model = predict.Classifier(folder / "all" / "model.onnx")
    raw = np.random.default_rng(2).integers(-200, 200, (3, 2, 40)).astype(np.int16)
    raw[:, :, 5:9] = -9
    values = raw * np.float32(0.01)
    values[:, 1, :][raw[:, 1, :] == -9] = np.nan
    expected = model.predict_proba(values)
    model.about["decoding"] = told
    np.testing.assert_array_equal(model.predict_proba(raw), expected)


def test_series_that_do_not_fit_are_refused(folder: Path, predict: ModuleType) -> None:
    model = predict.Classifier(folder / "all" / "model.onnx")
    with pytest.raises(ValueError, match="series 1 has shape"):
        model.predict([np.zeros((2, 9)), np.zeros((3, 9))])
    with pytest.raises(ValueError, match="has 51 points: expected 1 to 50"):
        model.predict(np.zeros((1, 2, 51)))
    with pytest.raises(ValueError, match="series 0 has no value"):
        model.predict(np.full((1, 2, 20), np.nan))
    noise = np.random.default_rng(0).standard_normal((1, 2, 20))
    assert len(model.predict(np.concatenate([noise, np.full_like(noise, 12.3456781), np.where(noise > 1, np.nan, 1)])))


def test_predictions_are_printed(
    folder: Path, predict: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "new.npy", np.zeros((2, 2, 20), np.float32))
    predict.main([str(tmp_path / "new.npy")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "predicted,ja,nö"
    assert len(lines) == 3
    with pytest.raises(SystemExit, match="usage"):
        predict.main([])


def test_values_that_no_float32_holds_are_refused(folder: Path, predict: ModuleType) -> None:
    model = predict.Classifier(folder / "all" / "model.onnx")
    for value in (np.inf, -np.inf, 1e39):
        with pytest.raises(ValueError, match="series 1 holds infinite values"):
            model.predict_proba([np.ones((2, 20)), np.full((2, 20), value)])
    with pytest.raises(ValueError, match="series 0 is of type complex128: expected numbers"):
        model.predict_proba(np.ones((1, 2, 20), complex))


def test_a_table_is_read_as_its_training_named_it(predict: ModuleType, tmp_path: Path) -> None:
    def read(text: str, columns: list[str] | None = None) -> list[list[float]]:
        (tmp_path / "new.csv").write_text(text, encoding="utf-8")
        return [series.tolist() for series in predict._read(tmp_path / "new.csv", columns)]

    assert read("1,2.5\n\n-3e0, 4\n") == [[1, 2.5], [-3, 4]]
    assert read("a,b\n1,2\n") == [[1, 2]]
    assert np.isnan(read("1,\nNA,?\n")[1]).all()
    assert read('\ufeffb,"a",label\n1,2,x\n3\n', ["a", "b"])[0] == [2, 1]
    assert read("1,2,3\n2,3,4\n5,6,7\n") == [[1, 2, 3], [2, 3, 4], [5, 6, 7]]
    for text, columns, said in (
        ("1,2\n3,1.2.3\n", None, "line 2: value 1 is '1.2.3': expected a number"),
        ("1,1_0\n", None, "line 1: value 1 is '1_0'"),
        ("0,b\n1,2\n", None, "line 1: value 1 is 'b'"),
        ("0,1,2\n5,4,7\n1,2,0\n", None, "line 1 .* rises, as numbers for names do"),
        ("1,2\n", ["a", "b"], "line 1 does not name the column 'a'"),
        ("a,b\n1,2,3\n", ["a", "b"], "line 2 has 3 fields: expected at most 2"),
    ):
        with pytest.raises(ValueError, match=said):
            read(text, columns)


def test_a_file_that_cannot_be_used_ends_in_a_message(
    predict: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(5))
    (tmp_path / "text.csv").write_text("1,x\n")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, said in (
        ("flat.npy", "shape (5,)"),
        ("text.csv", "'x'"),
        ("empty.npy", "No data"),
        ("no.csv", "No such"),
    ):
        with pytest.raises(SystemExit) as stopped:
            predict.main([str(tmp_path / name)])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err


def test_names_with_commas_are_quoted(
    predict: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_model = predict.Classifier

    def renamed(path: Path) -> Any:
        model = load_model(path)
        model.classes_ = np.array(["left, up", "right"])
        return model

    monkeypatch.setattr(predict, "Classifier", renamed)
    np.save(tmp_path / "new.npy", np.zeros((2, 2, 20), np.float32))
    predict.main([str(tmp_path / "new.npy")])
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["predicted", "left, up", "right"]
    assert {len(row) for row in rows} == {3}


def test_names_of_points_are_those_of_a_table_as_it_is(folder: Path) -> None:
    trained = load.load_run(folder / "run")
    one = replace(trained.spec, num_channels=1, length=3, header='a,"b,c",d')
    assert formats.described(trained._replace(spec=one))["columns"] == ["a", "b,c", "d"]
    assert formats.described(trained._replace(spec=replace(one, length=4)))["columns"] is None  # names of channels
    assert formats.described(trained)["columns"] is None
    config = {**trained.config, "data": {**trained.config["data"], "prepare": {"crop_length": 3}}}
    assert formats.described(trained._replace(spec=one, config=config))["columns"] is None


def test_needs_numpy_and_the_runtime_alone() -> None:
    from krontime.runs.exported import predict

    source = Path(predict.__file__).read_text(encoding="utf-8")
    imported = {
        line.split()[1].split(".")[0] for line in source.splitlines() if line.lstrip().startswith(("import ", "from "))
    }
    assert imported - set(sys.stdlib_module_names) <= {"numpy", "onnxruntime", "predict"}


def test_a_check_finds_the_formats_and_the_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked(folder / "all", paths={"data": str(folder / "data"), "cache": str(folder / "cache")})
    said = capsys.readouterr().out
    assert "3 test series of" in said
    assert "| torch | `model.pt2` |" in said


@pytest.mark.parametrize("name", ["all", "run"])
def test_the_benchmark_of_a_run_times_each_format(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = subprocess.run

    def in_this_process(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "input" not in options:  # git
            return started(command, **options)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            monkeypatch.setattr(sys, "stdin", io.StringIO(options["input"]))
            latency_cell.main()
        return subprocess.CompletedProcess(command, 0, out.getvalue(), "")

    monkeypatch.setattr(latency_cell, "_MEASURE_S", 0.0)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(latency.subprocess, "run", in_this_process)
    cli.main(["benchmark", f"run={folder / name}", f"output={tmp_path}"])
    table = capsys.readouterr().out.partition("## Latency")[2]
    assert "Series of 50 points" in table
    assert "| format | start, s | 1 series, ms | 32 series, ms | memory, MiB |" in table
    for format_name in ("krontime (torch, compiled closed form)", "torch.export", "ONNX Runtime"):
        assert f"| {format_name} |" in table
    kept = json.loads((tmp_path / "latency.json").read_text(encoding="utf-8"))
    assert [it["name"] for it in kept["formats"]] == ["run", "onnx", "torch"]
    assert all(it["start_s"] > 0 and set(it["latency_ms"]) == {"1", "32"} for it in kept["formats"])
    assert kept["environment"]["device"]["num_threads"] >= 1


def test_a_check_generates_series_where_the_data_are_gone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked(folder / "all")
    assert "generated series, since the run's data can't be read" in capsys.readouterr().out


def test_a_program_of_series_shorter_than_what_others_are_padded_to(folder: Path, tmp_path: Path) -> None:
    trained = load.load_run(folder / "run")
    short = trained._replace(spec=replace(trained.spec, length=10, min_length=10))
    formats.write(short, ["torch"], tmp_path)
    x = np.random.default_rng(0).standard_normal((3, 2, 10)).astype(np.float32)
    np.testing.assert_allclose(formats.loaded("torch", tmp_path)(x), formats.of_run(short)(x), atol=1e-6)


def test_a_check_sees_another_graph(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(name: str, folder: Path) -> formats.Predict:
        del name, folder
        return lambda x: np.tile(np.float32([0.5, 0.5]), (len(x), 1))

    monkeypatch.setattr(formats, "loaded", shifted)
    with pytest.raises(UserError, match=r"format=onnx: its probabilities differ by .* expected at most 0\.0001"):
        checked(folder / "all")
    monkeypatch.setattr(formats, "loaded", lambda *_: lambda x: np.full((len(x), 2), np.nan, np.float32))
    with pytest.raises(UserError, match="format=onnx: its probabilities differ by nan"):
        checked(folder / "all")
    with pytest.raises(UserError, match="format=torch: its probabilities differ"):
        export(OmegaConf.create({"run": str(folder / "run"), "output": str(tmp_path / "new"), "format": "torch"}))
    assert not (tmp_path / "new").exists()


def test_a_check_refuses_what_is_damaged_or_no_export(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a folder that export wrote"):
        checked(folder / "run")
    copied = shutil.copytree(folder / "all", tmp_path / "copy")
    (copied / "model.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match=r"model\.onnx: is not the file that was exported"):
        checked(copied)
    for name in ("model.onnx", "model.pt2"):
        (copied / name).unlink()
    with pytest.raises(UserError, match=r"expected a folder with model\.onnx or model\.pt2"):
        checked(copied)


def test_options_that_cannot_work_are_refused_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"run": None, "output": None, "format": "tensor", "series": 0}
    with pytest.raises(UserError) as refused:
        export(OmegaConf.create(given))
    assert [problem.partition("=")[0] for problem in refused.value.problems] == ["run", "output", "format", "series"]
    with pytest.raises(UserError, match="expected one of bundle, onnx, torch, all"):
        export(OmegaConf.create({**given, "format": ["onnx"]}))
    with pytest.raises(UserError, match="null where check=FOLDER"):
        export(OmegaConf.create({"check": str(folder / "all"), "run": "x"}))
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"onnx, onnxscript, onnxruntime \(pip install 'krontime\[onnx\]'\)"):
        export(OmegaConf.create({"run": "a", "output": "b", "format": "onnx"}))


def test_is_a_check_of_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", f"check={folder}"])
    assert stopped.value.code == 2
    assert "expected a folder that export wrote" in capsys.readouterr().err


@pytest.mark.slow
def test_a_closed_form_and_a_network_are_one_graph(
    folder: Path,
    tmp_path: Path,
    compose: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = compose(
        *("data=npz", f"paths.data={folder / 'data'}", "data.path=${paths.data}/two.npz", "tokenizer.width=6"),
        *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", *CLOSED_FORM),
        "closed_form.parts.spectra.windows=[12]",
        *("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "optim.min_batches_per_epoch=1"),
    )
    run.train_in(options, tmp_path / "run")
    load_run = load.load_run

    def mixed(run_dir: Path) -> load.LoadedRun:
        loaded = load_run(run_dir)
        assert loaded.module.mixture is not None
        loaded.module.mixture.mixing = NetworkMixing(1.5, 0.4, 0.1, 0.01)
        loaded.module.mixture.closed_form.kept.fill_(True)
        return loaded

    monkeypatch.setattr(load, "load_run", mixed)
    caplog.set_level(logging.INFO)
    export(OmegaConf.create({"run": str(tmp_path / "run"), "output": str(tmp_path / "all"), "format": "all"}))
    card = (tmp_path / "all" / "README.md").read_text(encoding="utf-8")
    assert "the scaling and the network and 5 calibrated parts of the closed form" in card
    assert "12 test series of" in card
    assert not [record for record in caplog.records if record.name.startswith("onnx")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        ("model=s4d", "model.d_model=4", "model.num_layers=1", "model.d_state=4"),
        ("model=inception", "model.num_filters=2", "model.bottleneck=2", "model.num_modules=1"),
        ("model=krontime", "closed_form=none", "tokenizer=rocket", "tokenizer.num_dilations=1", "model.d_model=8"),
    ],
    ids=["s4d", "inception", "rocket"],
)
def test_other_networks_are_graphs_too(
    model: tuple[str, ...], folder: Path, tmp_path: Path, compose: Callable[..., dict[str, Any]]
) -> None:
    options = compose(
        *("data=npz", f"paths.data={folder / 'data'}", "data.path=${paths.data}/two.npz", *model),
        *("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "optim.min_batches_per_epoch=1"),
    )
    run.train_in(options, tmp_path / "run")
    export(OmegaConf.create({"run": str(tmp_path / "run"), "output": str(tmp_path / "all"), "format": "all"}))
    assert "12 test series of" in (tmp_path / "all" / "README.md").read_text(encoding="utf-8")
