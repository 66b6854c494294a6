"""Pages of a run and of several runs: whole, self-contained, readable without the plots."""

import contextlib
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from krontime import cli
from krontime.config.identity import config_hash
from krontime.reports.comparison.collect import collect, publish
from krontime.reports.comparison.compare import compare
from krontime.reports.page.sweep_page import write_sweep_page
from krontime.runs.record import Record
from krontime.runs.run import train_in
from tests.cli.run.small import CLOSED_FORM

SMALL = (
    "model.d_model=8",
    "model.num_heads=2",
    "model.num_layers=1",
    "model.ffn_dim=8",
    *CLOSED_FORM,
    "optim.min_batches_per_epoch=1",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
)


class Structure(HTMLParser):
    """Titles, links to elsewhere, and elements that a screen reader needs words for."""

    def __init__(self) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.elsewhere: list[str] = []
        self.images: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self._in_title = tag == "h2"
        if tag in ("script", "link", "img", "iframe") and (given.get("src") or given.get("href")):
            self.elsewhere.append(str(given))
        if given.get("role") == "img":
            self.images.append(given.get("aria-label") or "")

    def handle_data(self, data):
        if self._in_title:
            self.titles.append(data.strip())
            self._in_title = False


@pytest.fixture(scope="module")
def runs(compose, tmp_path_factory) -> Path:
    """A folder with two finished runs on series with awkward class names."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, 2, 80)).astype("f4")
    X[y == 1, 0] += np.sin(np.arange(80) / 3)
    split = (np.arange(40) >= 28).astype(int)
    np.savez(folder / "a.npz", X=X, y=y, split=split, classes=np.array(["<b>hum</b>", "異常 & co"]), fs=50.0)
    for seed in (0, 1):
        with contextlib.redirect_stdout(io.StringIO()):
            config = compose("data=npz", f"data.path={folder / 'a.npz'}", f"seed={seed}", *SMALL)
            train_in(config, folder / "out" / f"seed{seed}")
    return folder


def page(path: Path) -> tuple[str, Structure]:
    text = path.read_text(encoding="utf-8")
    structure = Structure()
    structure.feed(text)
    return text, structure


def test_the_page_of_a_run_is_whole_and_needs_no_network(runs, tmp_path, capsys):
    cli.main(["report", f"run={runs / 'out' / 'seed0'}", f"output={tmp_path / 'r.html'}"])
    text, structure = page(tmp_path / "r.html")
    expected = {"Scores", "Errors", "Sets and thresholds", "Examples", "Training", "Data", "Protocol"}
    assert expected <= set(structure.titles)
    assert "No test series is, value for value, a training series too." in text
    assert text.count("What decided") >= 2  # under the first example of each kind
    for part in ("network", "closed_form"):
        assert f"val/{part}_nll" in text
    assert structure.elsewhere == []
    assert len(structure.images) >= 4
    assert all(structure.images)
    assert "<b>hum</b>" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "異常 &amp; co" in text
    assert (tmp_path / "r.html").stat().st_size < 5 * 2**20
    assert "r.html" in capsys.readouterr().out


def test_without_a_test_split_the_page_shows_what_was_held_out(runs, tmp_path):
    shutil.copytree(runs / "out" / "seed0", folder := tmp_path / "run")
    (folder / "test_predictions.parquet").unlink()
    record = Record.read(folder / "record.json")
    assert record.protocol is not None
    untested = record.protocol.model_copy(update={"num_test": 0})
    metrics = record.metrics.model_copy(update={"test": {}})
    record.config["data"]["source"]["path"] = str(runs / "gone" / "a.npz")  # found elsewhere
    changed = {"protocol": untested, "metrics": metrics, "config_hash": config_hash(record.config)}
    record.model_copy(update=changed).write(folder / "record.json")
    cli.main(["report", f"run={folder}", f"output={tmp_path / 'r.html'}", f"paths.data={runs}"])
    text, structure = page(tmp_path / "r.html")
    assert "2 channels of 80 points at 50 Hz" in text
    assert {"Errors", "How far its probabilities can be trusted", "Sets and thresholds"} <= set(structure.titles)
    assert "Confusion matrix of the held-out series" in text
    assert "interval of test" not in text
    assert all(structure.images)


def test_predictions_of_other_series_than_the_record_counts_are_refused(runs, tmp_path, capsys):
    shutil.copytree(runs / "out" / "seed0", folder := tmp_path / "run")
    path = folder / "test_predictions.parquet"
    pd.read_parquet(path)[:-3].to_parquet(path)
    with pytest.raises(SystemExit):
        cli.main(["report", f"run={folder}", f"output={tmp_path / 'r.html'}"])
    assert "protocol.num_test is 12 but the predictions beside it are 9" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "r.html").exists()


def test_the_page_of_several_runs_compares_them(runs, tmp_path):
    cli.main(["report", f"run={runs / 'out'}", f"output={tmp_path / 's.html'}"])
    text, structure = page(tmp_path / "s.html")
    assert "2 completed runs of krontime on 1 data set" in text
    assert "seed0" in text
    assert "seed1" in text
    assert structure.elsewhere == []


def test_the_pages_of_published_results(runs, tmp_path):
    table = tmp_path / "table"
    publish(collect([runs / "out"])[0], table / "records")
    cli.main(["report", f"table={table}", f"output={tmp_path / 'all.html'}"])
    text, structure = page(tmp_path / "all.html")
    assert "2 completed runs of krontime on 1 data set" in text
    assert structure.elsewhere == []
    (job,) = re.findall(r"krontime verify table=\S+ run=(\S+)</code>", text)
    cli.main(["report", f"table={table}", f"run={job}", f"output={tmp_path / 'one.html'}"])
    text, structure = page(tmp_path / "one.html")
    assert {"Scores", "Errors", "How far its probabilities can be trusted", "Protocol"} <= set(structure.titles)
    assert all(structure.images)
    assert f"krontime verify table={table} run={job}" in text
    assert "krontime.load" not in text


def test_variants_of_a_sweep_are_named_by_what_differs(runs, tmp_path):
    stored, _ = collect([runs / "out"])
    seeds = [str(run.record.seed) for run in stored]
    comparison = compare(stored, keys=["model.name", "seed"])
    write_sweep_page(comparison, "runs", tmp_path / "v.html", above="Superseded: old")
    text, structure = page(tmp_path / "v.html")
    assert "Superseded: old" in text
    header = re.findall(r'<th scope="col">(.*?)</th>', text)
    assert header[:2] == ["seed", "seed"]  # the name of the model, which is the same, is left out
    assert all(f'<th scope="row">{seed}</th>' in text for seed in seeds)
    assert all(structure.images)


def test_a_page_without_its_data_says_so(runs, tmp_path, monkeypatch):
    (runs / "a.npz").rename(runs / "moved.npz")
    try:
        cli.main(["report", f"run={runs / 'out' / 'seed0'}", f"output={tmp_path / 'r.html'}"])
    finally:
        (runs / "moved.npz").rename(runs / "a.npz")
    assert "The data could not be read for this page" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_mistakes_are_named_before_anything_is_written(runs, tmp_path, capsys):
    (tmp_path / "there.html").write_text("mine")
    for overrides, expected in (
        ([f"run={runs / 'out' / 'seed0'}", f"output={tmp_path / 'there.html'}"], "force=true"),
        ([f"run={runs / 'nothing'}", f"output={tmp_path / 'r.html'}"], "nothing"),
        ([f"run={tmp_path}", f"output={tmp_path / 'r.html'}"], "finished runs below it"),
        ([f"run={runs / 'out' / 'seed0'}", f"output={tmp_path}"], "ends in .html"),
        ([f"output={tmp_path / 'r.html'}"], "or table=FOLDER"),
        ([f"table={tmp_path / 'nothing'}", f"output={tmp_path / 'r.html'}"], "the folder of published results"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["report", *overrides])
        assert stopped.value.code == 2
        assert expected in capsys.readouterr().err
    assert (tmp_path / "there.html").read_text() == "mine"
    assert not (tmp_path / "r.html").exists()
