"""The benchmark measures each cell in fresh processes, keeps what it has measured, and records what went wrong."""

import csv
import json
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from krontime.commands import benchmark as module
from krontime.commands import benchmark_cell, benchmark_jobs
from krontime.commands.benchmark import benchmark
from krontime.commands.benchmark_plan import model_of
from krontime.commands.benchmark_process import run_cell, write_result
from krontime.config import resolve
from krontime.config.files import config_dir, options
from krontime.errors import UserError

COLUMNS = (
    "model,attention,depth,length,num_tokens,batch_size,train_step_ms,inference_ms,peak_memory_bytes,"
    "num_parameters,status"
)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited and counted on Linux only")


@contextmanager
def composing():
    resolve.register_resolvers()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield


def run(folder, *overrides):
    small = ["lengths=[64,128]", "models=[krontime_d2,patchtst_naive]", "rounds=1", "warmup=0", "steps=2"]
    small.append("jobs=[]")
    with composing():
        return benchmark(compose("benchmark", [*small, f"output={folder}", "growth_from=1", *overrides]))


def by_cell(rows):
    return {(row.variant, row.length): row for row in rows}


@pytest.fixture
def processes(monkeypatch):
    """No real processes: a list of `(variant, length, file)` that grows with each of a cell, and results made up."""
    started = []

    def pretend(job, path, *, measure, timeout_s, memory_limit_bytes):
        if measure == "peak":
            write_result({"status": "ok", "gemm_flops_per_s": 1e12, "stream_bytes_per_s": 1e10}, path)
            return
        variant = path.parent.name.split("-")[0]
        started.append((variant, job["length"], path.stem))
        factor = 2 if variant == "patchtst_naive" else 1
        result = {"status": "ok", "message": None, "num_parameters": 1, "finished_at": "2026-01-02T03:04:05+00:00"}
        if measure == "memory":
            result |= {"peak_memory_bytes": factor * 2**20, "inference_peak_memory_bytes": 2**19, "floor_bytes": 1}
        else:
            train_ms = factor * job["length"] * (1 + int(path.stem.removeprefix("round")))
            result |= {"train_ms": [train_ms, train_ms, 99999], "inference_ms": [1.0]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result))

    monkeypatch.setattr(module, "run_cell", pretend)
    monkeypatch.setattr("krontime.reports.benchmark.plots.write_plots", lambda *args, **options: None)
    return started


@pytest.mark.slow
def test_real_processes_give_a_row_for_each_cell_and_every_file(tmp_path, capsys):
    rows = run(tmp_path, "lengths=[64]")
    assert [(row.variant, row.length) for row in rows] == [("krontime_d2", 64), ("patchtst_naive", 64)]
    for row in rows:
        assert row.status == "ok"
        assert row.message is None
        assert row.train_step_ms > row.inference_ms > 0
        assert row.train_step_ms_min <= row.train_step_ms <= row.train_step_ms_max
        assert row.train_series_per_s == pytest.approx(1000 / row.train_ms_per_series)
        assert row.num_tokens == row.length // 8
        assert row.forward_flops > 0
    cells = by_cell(rows)
    assert cells["krontime_d2", 64].depth == 2
    assert cells["patchtst_naive", 64].attention == "naive"
    with (tmp_path / "benchmark.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2
    assert ",".join(lines[0]).startswith(COLUMNS + ",")
    about = json.loads((tmp_path / "environment.json").read_text())
    assert {"device", "versions", "git"} <= set(about)
    assert about["peak"]["gemm_flops_per_s"] > 1e8
    assert about["peak"]["stream_bytes_per_s"] > 1e7
    for name in ("runtime", "memory"):
        for suffix in ("md", "tex", "csv", "svg"):
            assert (tmp_path / f"{name}.{suffix}").stat().st_size > 0
    text = (tmp_path / "runtime.md").read_text()
    assert "% of the machine's arithmetic" in text
    assert about["versions"]["torch"] in text
    assert about["last_result_at"][:10] in text
    assert "patchtst_naive" in capsys.readouterr().out


def test_cells_take_turns_in_every_round(tmp_path, processes):
    run(tmp_path, "rounds=2")
    turns = [turn for _, _, turn in processes]
    assert turns == ["memory"] * 4 + ["round0"] * 4 + ["round1"] * 4
    memory, first, second = (processes[start : start + 4] for start in (0, 4, 8))
    assert len({cell[:2] for cell in memory}) == 4
    assert [cell[:2] for cell in first] == [cell[:2] for cell in second][::-1]


def test_an_interrupted_benchmark_measures_only_what_is_missing(tmp_path, processes):
    before = run(tmp_path)
    processes.clear()
    assert run(tmp_path) == before
    assert not processes
    next(tmp_path.glob("cells/krontime_d2-128-*/round0.json")).unlink()
    assert run(tmp_path) == before
    assert processes == [("krontime_d2", 128, "round0")]


def test_more_rounds_and_other_models_keep_what_is_there(tmp_path, processes):
    run(tmp_path)
    processes.clear()
    run(tmp_path, "rounds=2", "models=[krontime_d2,floor]", "lengths=[64]")
    assert sorted(processes) == [
        ("floor", 64, "memory"),
        ("floor", 64, "round0"),
        ("floor", 64, "round1"),
        ("krontime_d2", 64, "round1"),
    ]


@pytest.mark.slow
def test_other_settings_or_other_code_are_measured_anew(tmp_path, processes, monkeypatch):
    run(tmp_path)
    processes.clear()
    run(tmp_path, "batch_size=2")
    assert len(processes) == 8
    processes.clear()
    monkeypatch.setattr(module, "_code_sha256", lambda: "changed")
    run(tmp_path)
    assert len(processes) == 8


def test_one_round_has_the_spread_of_its_steps(tmp_path, processes):
    row = by_cell(run(tmp_path))["krontime_d2", 128]
    assert (row.train_step_ms_min, row.train_step_ms, row.train_step_ms_max) == (128, 128, 99999)


def test_numbers_are_medians_over_rounds_of_medians_over_steps(tmp_path, processes):
    row = by_cell(run(tmp_path, "rounds=3"))["krontime_d2", 128]
    assert (row.train_step_ms_min, row.train_step_ms, row.train_step_ms_max) == (128, 256, 384)
    assert row.train_ms_per_series == 64
    assert row.train_series_per_s == pytest.approx(1000 / 64)
    assert row.num_rounds == 3


def test_tables_hold_ratios_and_growth(tmp_path, processes):
    run(tmp_path)
    with (tmp_path / "runtime.csv").open(newline="") as file:
        lines = {(line["variant"], line["length"]): line for line in csv.DictReader(file)}
    for length in ("64", "128"):
        assert float(lines["krontime_d2", length]["train_step_ms_ratio"]) == pytest.approx(0.5)
        assert float(lines["krontime_d2", length]["train_step_ms_growth"]) == pytest.approx(1)
    assert "| krontime_d2 | 64.0 (0.50) | 128 (0.50) | 1.00 |" in (tmp_path / "runtime.md").read_text()
    assert "krontime\\_d2 & 64.0 (0.50) & 128 (0.50) & 1.00 \\\\" in (tmp_path / "runtime.tex").read_text()


def test_no_rounds_measure_memory_alone(tmp_path, processes):
    run(tmp_path, "rounds=0")
    assert {turn for _, _, turn in processes} == {"memory"}
    assert (tmp_path / "memory.md").is_file()
    assert not (tmp_path / "runtime.md").exists()


def test_what_cannot_fit_is_recorded_and_not_tried(tmp_path, processes):
    rows = run(tmp_path, "memory_gib=0.0001", "lengths=[64]", "models=[krontime_d2]")
    assert not processes
    assert rows[0].status == "out_of_memory"
    assert "not tried" in rows[0].message
    assert rows[0].train_step_ms is None
    assert rows[0].estimated_memory_bytes > 0.0001 * 2**30


@pytest.mark.slow
def test_a_lost_cell_takes_no_further_rounds_and_stands_in_the_table(tmp_path, processes, monkeypatch):
    pretend = module.run_cell

    def lose_naive(job, path, **others):
        if job.get("model", {}).get("name") == "patchtst":
            processes.append(("lost", job["length"], path.stem))
            write_result({"status": "timeout", "message": "late", "timeout_s": others["timeout_s"]}, path)
        else:
            pretend(job, path, **others)

    monkeypatch.setattr(module, "run_cell", lose_naive)
    cells = by_cell(run(tmp_path, "rounds=2"))
    assert cells["patchtst_naive", 64].status == "timeout"
    assert cells["patchtst_naive", 64].message == "late"
    assert [turn for name, _, turn in processes if name == "lost"] == ["memory", "memory"]
    assert "| patchtst_naive | timeout | timeout | - |" in (tmp_path / "runtime.md").read_text()

    processes.clear()
    run(tmp_path, "rounds=2")
    assert not processes  # a timeout is a result
    run(tmp_path, "rounds=2", "timeout_s=3600")
    assert [name for name, _, _ in processes] == ["lost", "lost"]  # unless more time is given


def test_a_failed_cell_is_tried_again(tmp_path, processes):
    run(tmp_path)
    processes.clear()
    path = next(tmp_path.glob("cells/krontime_d2-64-*/memory.json"))
    path.write_text(json.dumps({"status": "failed", "message": "bug", "finished_at": "2026"}))
    rows = run(tmp_path)
    assert processes == [("krontime_d2", 64, "memory")]
    assert all(row.status == "ok" for row in rows)


def job(length, *overrides):
    with composing():
        model = model_of(list(overrides))
    sizes = {"length": length, "num_channels": 1, "num_classes": 2, "batch_size": 4}
    times = {"warmup": 0, "steps": 1, "measure_s": 1}
    return {"model": model, "device": "cpu", "precision": "32-true", **sizes, **times}


NAIVE = ("model=patchtst", "model.attention=naive", "model.d_model=16", "model.num_heads=8", "tokenizer.patch_length=8")


@linux
@pytest.mark.slow
def test_a_process_that_outgrows_its_memory_says_so(tmp_path):
    # 1,024 tokens: a map of 134 MB in each layer, and a process of some 350 MB without
    run_cell(job(8192, *NAIVE), tmp_path / "r.json", measure="memory", timeout_s=120, memory_limit_bytes=600 * 2**20)
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["status"] == "out_of_memory", result


@linux
@pytest.mark.slow
def test_measured_memory_holds_what_the_plan_states_and_little_more(tmp_path):
    measured = job(4096, *NAIVE)
    run_cell(measured, tmp_path / "r.json", measure="memory", timeout_s=120, memory_limit_bytes=None)
    result = json.loads((tmp_path / "r.json").read_text())
    maps_bytes = 3 * 4 * 8 * 512 * 512 * 4  # layers, series, heads, tokens twice, float32
    assert result["status"] == "ok", result
    assert maps_bytes < result["peak_memory_bytes"] < 3 * maps_bytes
    assert result["inference_peak_memory_bytes"] < result["peak_memory_bytes"]


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    run_cell(job(64, *NAIVE), tmp_path / "r.json", measure="time", timeout_s=0.05, memory_limit_bytes=None)
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["status"] == "timeout"


def test_a_process_that_fails_leaves_its_error(tmp_path):
    broken = job(64, *NAIVE)
    broken["model"]["_target_"] = "os.system"
    run_cell(broken, tmp_path / "r.json", measure="time", timeout_s=120, memory_limit_bytes=None)
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["status"] == "failed"
    assert "os.system" in result["message"]


def test_a_process_imports_no_lightning():
    import subprocess

    code = (
        "import sys, krontime.commands.benchmark_cell; "
        "print([m for m in ('lightning', 'aeon', 'torchmetrics', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modes_and_points_make_cells_of_their_own(tmp_path, processes):
    rows = run(tmp_path, "modes=[eager,compiled]", "points_per_batch=512")
    assert {(row.variant, row.length, row.batch_size) for row in rows} == {
        (f"{variant}{mode}", length, 512 // length)
        for variant in ("krontime_d2", "patchtst_naive")
        for mode in ("", "_compiled")
        for length in (64, 128)
    }
    assert "Batches of 512 values" in (tmp_path / "runtime.md").read_text()


def test_the_fastest_backend_that_works_is_taken(monkeypatch):
    now, took_s = [0.0], {"flash": 3, "cudnn": None, "efficient": 1, "math": 2}
    monkeypatch.setattr(benchmark_cell, "BACKENDS", {name: name for name in took_s})
    monkeypatch.setattr(benchmark_cell, "sdpa_kernel", lambda name: nullcontext(used.append(name)))
    monkeypatch.setattr(benchmark_cell.time, "perf_counter", lambda: now[0])
    used = []

    def step():
        if took_s[used[-1]] is None:
            raise RuntimeError("no kernel")
        now[0] += took_s[used[-1]]

    assert benchmark_cell.fastest_backend(step) == "efficient"
    took_s = dict.fromkeys(took_s)
    with pytest.raises(RuntimeError, match="no kernel"):
        benchmark_cell.fastest_backend(step)


def test_no_process_is_begun_when_the_time_is_over(tmp_path, processes, monkeypatch):
    seconds = iter(range(0, 10_000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    rows = run(tmp_path, "total_s=50")
    assert 0 < len(processes) < 8
    assert len(rows) == 4
    assert "-" in (tmp_path / "memory.md").read_text()


def test_a_job_is_a_training_whose_record_is_read(tmp_path, processes, monkeypatch, make_record):
    started = []

    def pretend(package, arguments, text, *, timeout_s, extra):
        started.append(arguments)
        output = next(argument.removeprefix("paths.output=") for argument in arguments if "paths.output" in argument)
        record = make_record(train_time_s=3.0, inference_ms_per_series=0.5, peak_memory_bytes=2**20)
        if "model=tcn" in arguments:
            return {"status": "timeout", "message": "late", "timeout_s": timeout_s}
        record.write(Path(output) / "run" / "record.json")
        return None

    monkeypatch.setattr(benchmark_jobs, "run_process", pretend)
    own = ('+trainings.mine=["model=krontime"]', '+trainings.late=["model=tcn"]')
    chosen = ("job_lengths=[512]", "job_series=20", *own)
    run(tmp_path, *chosen, "jobs=[mine,late]")
    assert "| mine | 3.00 |" in (text := (tmp_path / "jobs.md").read_text())
    assert "| late | timeout |" in text
    assert len(started) == 2
    assert {"model=krontime", "data.source.length=512", "data.source.num_train=20"} < set(started[0])
    run(tmp_path, *chosen, "jobs=[mine,late]")
    assert len(started) == 2
    with pytest.raises(UserError, match=r"trainings\.odd: "):
        run(tmp_path, '+trainings.odd=["model=nothing"]', "jobs=[odd]")


@pytest.mark.slow
def test_every_variant_of_the_config_has_a_plan(tmp_path, processes):
    rows = run(tmp_path, "models=null", "lengths=[512]", "rounds=0")
    assert {row.variant for row in rows} >= {"krontime_d4", "floor", "patchtst_paper_fused", "tcn", "tcn_covering"}
    for row in rows:
        assert row.num_parameters > 0
        assert row.estimated_memory_bytes > 0
    result = {row.variant: row for row in rows}
    assert result["krontime_d2"].num_tokens == result["patchtst_naive"].num_tokens == result["floor"].num_tokens == 64
    assert 356_000 < result["tcn"].num_parameters < 358_000


def test_a_user_can_add_a_variant(tmp_path, processes):
    rows = run(tmp_path, '+variants.mine=["model=krontime","model.num_layers=1","tokenizer=linear"]', "models=[mine]")
    assert {row.variant for row in rows} == {"mine"}


@pytest.mark.parametrize("size", options("size"))
def test_every_size_fits_the_config(size):
    with composing():
        module._check(resolve.plain(compose("benchmark", [f"size={size}"])))


def test_all_mistakes_are_named_at_once(tmp_path, processes):
    with pytest.raises(UserError) as error:
        run(tmp_path, "lengths=[0]", "models=[nothing]", "batch_size=0", "precision=8", "accelerator=abacus")
    assert [problem.split("=")[0] for problem in error.value.problems] == [
        "lengths",
        "models",
        "batch_size",
        "precision",
        "accelerator",
    ]
    with pytest.raises(UserError) as error:
        run(tmp_path, '+variants.bad=["model=nothing"]', '+variants.worse=["model.typo=1"]', "models=[bad,worse]")
    assert [problem.split(":")[0] for problem in error.value.problems] == ["variants.bad", "variants.worse"]
    assert not processes
