"""The command `tables`, from run folders to files."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest

from krontime import cli
from krontime.errors import UserError
from krontime.runs.sweep import Job, Sweep
from tests.unit.commands.outcomes import PLOTS, TEXTS, run, scores

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results"


def edit(path: Path, *keys: str, value: object) -> None:
    content = json.loads(path.read_text())
    node = content
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text(json.dumps(content))


def test_all_files_are_written(runs, tmp_path, capsys):
    assert run(f"records=[{runs}]", f"output={tmp_path / 'out'}") == [tmp_path / "out"]
    texts = {f"{name}{end}" for name in ("scores", "significance") for end in TEXTS}
    plots = {f"{name}{end}" for name in ("pareto_time", "pareto_memory", "critical_difference") for end in PLOTS}
    assert {path.name for path in (tmp_path / "out").iterdir()} == texts | plots | {"tables.yaml"}
    out = capsys.readouterr().out
    assert "| A | accuracy | **0.900 ± 0.000** (n=2) | <u>0.800 ± 0.000</u> (n=2) | 0.700 ± 0.000 (n=2) |" in out
    assert "| A | krontime | patchtst | +0.100 |" in out
    assert "bootstrap, test series" in out


TAMPERING = {
    "other data": (("protocol", "data_sha256"), "cd" * 32, "protocols differ (data_sha256: abababab... / cdcdcdcd...)"),
    "another split": (("protocol", "split_method"), "group", "protocols differ (split_method: stratified / group)"),
    "a changed config": (("config", "model", "depth"), 3, "damaged, and left out: config_hash is "),
}
for name, value in {
    "split_seed": 7,
    "fold": 0,
    "scaling": "none",
    "preparation": {"crop_length": 9},
    "windowing": {"length": 9, "stride": 9},
    "fitted_on": "train",
    "selection_metric": "val/nll",
}.items():
    TAMPERING[f"another {name}"] = (("protocol", name), value, f"protocol.{name} is {value!r} but the config gives ")
for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
    told = f"metrics.test.{name} is 0.99 but the predictions beside it give 0.9000000"
    TAMPERING[f"a changed {name}"] = (("metrics", "test", name), 0.99, told)


FAST = ("other data", "a changed config", "another split", "a changed accuracy")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in FAST else pytest.mark.slow) for kind in TAMPERING]
)
def test_tampering_is_told_and_never_averaged_in(no_plots, runs, tmp_path, kind, caplog, capsys):
    keys, value, told = TAMPERING[kind]
    path = next((runs / "A" / "krontime").glob("seed1-*")) / "record.json"
    edit(path, *keys, value=value)
    with caplog.at_level(logging.WARNING):
        run(f"records=[{runs}]", f"output={tmp_path / 'out'}")
    text = (tmp_path / "out" / "scores.md").read_text()
    assert re.search(r"\| A .* 0\.900(\*\*)? \(n=1\)|\| A .*\*\*0\.900\*\* \(n=1\)", text)  # of seed 0 alone
    assert told in caplog.text + capsys.readouterr().out  # what the page says is said once, with it
    assert told.removeprefix("damaged, and left out: ") in text
    if "protocols differ" not in told:
        assert str(path) in caplog.text
        assert path.relative_to(runs).as_posix() in text
        assert "A, krontime: no run with seed 1." in text
    assert str(tmp_path) not in text


def test_a_missing_seed_is_told(no_plots, runs, tmp_path, capsys):
    shutil.rmtree(next((runs / "B" / "tcn").glob("seed0-*")))
    run(f"records=[{runs}]", f"output={tmp_path / 'out'}")
    assert "B, tcn: no run with seed 0." in capsys.readouterr().out
    assert "B, tcn: no run with seed 0." in (tmp_path / "out" / "scores.md").read_text()


def test_variants_are_told_apart_by_config_keys(no_plots, runs, tmp_path):
    run(f"records={runs}", f"output={tmp_path / 'out'}", "rows=[model.name,model.depth]", "metric=balanced_accuracy")
    text = (tmp_path / "out" / "scores.md").read_text()
    assert "| name | depth | A<br>(balanced accuracy) |" in text
    assert "| patchtst | 2 | <u>0.800 ± 0.000</u> (n=2), accuracy 0.800 |" in text


def test_files_of_earlier_that_no_longer_hold_are_removed(no_plots, runs, tmp_path):
    out = tmp_path / "out"
    run(f"records={runs}", f"output={out}")
    assert (out / "significance.md").is_file()
    for name in ("mine.md", "critical_difference.svg"):
        (out / name).write_text("of earlier")
    run(f"records={runs / 'A' / 'tcn'}", f"output={out}", "metric=macro_f1")
    assert not list(out.glob("critical_difference.*"))
    assert "significance.md" not in {path.name for path in out.iterdir()}
    assert (out / "mine.md").is_file()


@pytest.mark.parametrize("name", ["scores.csv", "scaling.md", "rivals.csv", "significance.md", "tables.yaml"])
def test_files_that_tables_did_not_write_stay(no_plots, runs, tmp_path, name, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("my: own\n")
    monkeypatch.setattr("krontime.commands.tables.collect", lambda roots: pytest.fail("records were read"))
    for publish in ("false", "true"):
        with pytest.raises(UserError, match=f"output: .*{name}: .*expected"):
            run(f"records={runs}", f"output={out}", f"publish={publish}")
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "my: own\n"


def test_folders_that_tables_did_not_write_stay(no_plots, runs, tmp_path):
    for name in ("published", "tsml"):
        (tmp_path / "out" / name).mkdir(parents=True)
    rivals = RESULTS / "benchmark" / "published"
    for name, more in (("published", ("publish=true", f"published={rivals}")), ("tsml", ("export=tsml",))):
        with pytest.raises(UserError, match=f"output: .*{name}: would be lost"):
            run(f"records={runs}", f"output={tmp_path / 'out'}", *more)


def test_refreshing_keeps_files_that_tables_did_not_write(no_plots, runs, tmp_path):
    run(f"records={runs}", f"output={tmp_path / 'first'}", "publish=true")
    folder = tmp_path / "second"
    shutil.copytree(tmp_path / "first" / "records", folder / "records")
    (folder / "scores.md").write_text("mine")
    with pytest.raises(UserError, match=r"scores.md: would be lost"):
        run(f"refresh={folder}")
    assert (folder / "scores.md").read_text() == "mine"
    (folder / "scores.md").unlink()
    for _ in range(2):
        run(f"refresh={folder}")
    assert (folder / "tables.yaml").is_file()


def test_published_results_are_made_again_from_what_lies_there(no_plots, runs, tmp_path):
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    shutil.copy(RESULTS / "published.csv", results)
    page = tmp_path / "README.md"
    page.write_text("<!-- docs/results/first/scores.md:begin -->\n<!-- docs/results/first/scores.md:end -->\n")
    chosen = ("metric=balanced_accuracy", "seeds=[0,1]", f"published={results / 'published.csv'}", f"readme={page}")
    run(f"records={runs}", f"output={results / 'first'}", "publish=true", *chosen)
    assert (results / "first" / "tables.yaml").read_text() == (
        "metric: balanced_accuracy\nrows: null\nseeds:\n- 0\n- 1\npublished: ../published.csv\nsuperseded: null\n"
        "models: null\nagainst: null\nscatter: null\n"
    )
    filled = page.read_text()
    assert (results / "first" / "scores.md").read_text().strip() in filled
    assert "/home/me" not in "".join(path.read_text() for path in results.rglob("*.json*"))

    moved = tmp_path / "elsewhere"
    shutil.copytree(results / "first" / "records", moved / "first" / "records")
    for file in ("first/tables.yaml", "published.csv"):
        shutil.copy(results / file, moved / file)
    assert run(f"refresh={moved}") == [moved / "first"]
    for path in (results / "first").glob("*.*"):
        assert (moved / "first" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_what_is_superseded_says_so_and_why(no_plots, runs, tmp_path):
    folder = tmp_path / "first"
    run(f"records={runs}", f"output={folder}", "publish=true", "superseded='Other budgets.'")
    run(f"refresh={folder}")
    for name in ("scores", "significance"):
        assert (folder / f"{name}.md").read_text().startswith("> **Superseded.** Other budgets.\n\n**")


@pytest.mark.slow
def test_what_publishing_merges_stays_noted(no_plots, runs, tmp_path):
    path = next((runs / "A" / "tcn").glob("seed1-*")) / "record.json"
    again = runs / "again" / "record.json"
    again.parent.mkdir()
    shutil.copy(path, again)
    edit(again, "metrics", "test", value=scores(0.6))
    edit(again, "started_at", value="2026-01-02T01:00:00Z")
    path = next((runs / "B" / "tcn").glob("seed0-*")) / "record.json"
    (runs / "other").mkdir()
    shutil.copy(path, runs / "other")
    edit(runs / "other" / "record.json", "protocol", "num_val", value=30)
    notes = (
        "A, tcn: runs of seed 1 do not repeat; the newest is shown.",
        "B, tcn: runs of seed 0 differ in their protocol (num_val: 20 / 30).",
    )
    folder = tmp_path / "first"
    for step in (
        (f"records={runs}", f"output={folder}", "publish=true"),
        (f"refresh={folder}",),
        (f"records={folder / 'records'}", f"output={folder}", "publish=true"),
    ):
        run(*step)
        text = (folder / "scores.md").read_text()
        assert all(text.count(note) == 1 for note in notes)
    run(f"records={runs / 'A' / 'krontime'}", f"output={folder}", "publish=true")
    assert not any(note in (folder / "scores.md").read_text() for note in notes)


@pytest.mark.slow
def test_jobs_that_left_no_record_are_shown(no_plots, runs, tmp_path):
    done = next((runs / "A" / "krontime").glob("seed0-*")).relative_to(runs).as_posix()
    jobs = [
        Job(folder=done, overrides=[]),
        Job(folder="A/krontime/seed2-0123456789ab", overrides=[], error="refused"),
        Job(folder="D/tcn/seed0-0123456789ab", overrides=[], error="/home/me: no download"),
        Job(folder="D/tcn/seed1-0123456789ab", overrides=[]),
        Job(folder="D/tcn/seed0-0123456789ac", overrides=["++data.validation.max_train=50"]),
        Job(folder="elsewhere", overrides=[]),
    ]
    Sweep(jobs=jobs).write(runs)
    expected = {
        "A": "| **0.900 ± 0.000** (n=2), 1 failed |",
        "D": "| missing | missing | 1 failed, 1 missing |",
        "D, at most 50 training series": "| missing | missing | 1 missing |",
    }
    folder = tmp_path / "first"
    for step in (
        (f"records={runs}", f"output={folder}"),
        (f"records={runs}", f"output={folder}", "publish=true"),
        (f"refresh={folder}",),
        (f"records={folder / 'records'}", f"output={folder}", "publish=true"),
    ):
        run(*step)
        lines = (folder / "scores.md").read_text().splitlines()
        for data, cells in expected.items():
            assert cells in next(line for line in lines if line.startswith(f"| {data} |"))
    assert "/home/me" not in (folder / "records" / "remarks.json").read_text()
    run(f"records={runs / 'A'}", f"output={folder}", "publish=true")
    text = (folder / "scores.md").read_text()
    assert "1 failed" in text
    assert "| D |" not in text
    (folder / "records" / "remarks.json").write_text('{"unrecorded": [{"folder": "x"}]}')
    with pytest.raises(UserError, match=r"remarks\.json: not a readable file of remarks"):
        run(f"refresh={folder}")


def test_published_figures_stand_beside_ours_and_ours_are_exported(no_plots, runs, tmp_path):
    """Published again from the copies that were kept, and refreshed, they are the same."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows = [f"{data},HC2,{score},0.9" for data, score in (("A", 0.95), ("B", 0.85), ("C", 0.7), ("Other", 0.1))]
    (elsewhere / "accuracy.csv").write_text("\n".join(["dataset,classifier,r0,r1", *rows]) + "\n")
    folder = tmp_path / "out"
    chosen = (f"output={folder}", f"published={elsewhere}", "models=[krontime,tcn]", "against=tcn")
    run(f"records={runs}", *chosen, "publish=true", "export=tsml")
    page = (folder / "rivals.md").read_text()
    assert "wins/draws/losses of tcn" in page
    assert "patchtst" not in page + (folder / "scores.md").read_text()
    assert "Other" not in (folder / "published/accuracy.csv").read_text()
    assert "patchtst" not in (folder / "records/records.jsonl").read_text()
    assert (folder / "tsml/classification/accuracy/tcn_accuracy.csv").read_text() == (
        "Resamples:,0\nA,0.7\nB,0.7\nC,0.7\n"
    )
    shutil.rmtree(elsewhere)
    (folder / "rivals.md").unlink()
    run(f"refresh={folder}")
    assert (folder / "rivals.md").read_text() == page
    with pytest.raises(UserError, match="models: no record is of hc2"):
        run(f"records={runs}", f"output={folder}", "models=[hc2]")
    with pytest.raises(UserError, match="against='tcn': expected null without published=FOLDER"):
        run(f"records={runs}", f"output={folder}", "against=tcn")


def test_publishing_damaged_records_is_refused(runs, tmp_path):
    path = next(runs.rglob("record.json"))
    edit(path, "seed", value=7)
    with pytest.raises(UserError, match="expected no damaged record") as caught:
        run(f"records={runs}", f"output={tmp_path / 'out'}", "publish=true")
    assert caught.value.problems[0].startswith(f"{path}: seed is 7")
    assert not (tmp_path / "out").exists()


def test_every_mistake_is_told_at_once():
    with pytest.raises(UserError) as caught:
        run("records=[]", "metric=acc", "rows=depth", "seeds=[0,x]", "publish=1", "refresh=3", "published=a.csv")
    told = [problem.partition("=")[0].partition(":")[0] for problem in caught.value.problems]
    assert told == ["records", "publish", "refresh", "refresh", "metric", "rows", "seeds", "published"]
    with pytest.raises(UserError, match="have no effect with it"):
        run("refresh=docs", "seeds=[0]")


def test_wrong_folders_and_options_are_told(no_plots, runs, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: expected a folder"):
        run(f"records=[{runs},{tmp_path / 'nowhere'}]", f"output={tmp_path / 'out'}")
    with pytest.raises(UserError, match=r"refresh='.*': expected .* one of records, benchmark\.csv, probe\.csv"):
        run(f"refresh={tmp_path / 'nowhere'}")
    (tmp_path / "file").write_text("no folder")
    for output, problem in (("file", "expected a folder; this is a file"), ("file/out", "file is no folder")):
        with pytest.raises(UserError, match=f"output=.*{problem}"):
            run(f"records={tmp_path / 'not looked at'}", f"output={tmp_path / output}")
    with pytest.raises(UserError, match=r"readme=.*expected a file; this is a folder"):
        run(f"records={runs}", f"output={tmp_path / 'out'}", f"readme={tmp_path}")
    with pytest.raises(UserError, match=r"rows: 'model\.widht': expected a config key"):
        run(f"records={runs}", f"output={tmp_path / 'out'}", "rows=[model.widht]")
    run(f"records={runs}", f"output={tmp_path / 'first'}", "publish=true")
    for text, problem in (("metric: acc\n", "metric='acc'"), ("metrics: acc\n", "with the keys metric"), ("[", "YAML")):
        (tmp_path / "first" / "tables.yaml").write_text(text)
        with pytest.raises(UserError, match=rf"tables\.yaml: .*{problem}"):
            run(f"refresh={tmp_path / 'first'}")


@pytest.mark.slow
def test_the_command(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["tables", "records=runs", "output=out"])
    assert "Written to out" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["tables", "records=nowhere"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "krontime: nowhere: expected a folder with run folders in it\n"
