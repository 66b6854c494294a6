"""The documentation holds together: its navigation is whole, and its Python runs."""

import contextlib
import io
import json
import os
import re
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from krontime import cli
from krontime.commands import COMMANDS
from krontime.reports.comparison.collect import collect, publish
from krontime.runs.run import train_in
from tests.cli.run.small import CLOSED_FORM

ROOT = Path(__file__).parents[2]


def pages(node: Any) -> list[str]:
    """The files that a navigation names."""
    if isinstance(node, str):
        return [node]
    return [page for part in (node.values() if isinstance(node, dict) else node) for page in pages(part)]


def test_every_page_is_in_the_navigation():
    named = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def commands(page: Path) -> list[list[str]]:
    """The words of each `krontime` line in the blocks of a page, without comments."""
    text = re.sub(r"\$\(.*?\)", "RUN", page.read_text(encoding="utf-8").replace("\\\n", " "))
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.partition("; ")[0] for block in blocks for line in block.splitlines()]
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True)) and words[0] == "krontime"]


@pytest.mark.parametrize(
    "page", sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]), ids=lambda page: page.stem
)
def test_every_command_of_a_page_has_such_groups_and_keys(page: Path, compose):
    for name, *arguments in commands(page):
        assert name in COMMANDS
        words = [
            re.sub(r"^([\w./]+=[^\[{,]+),.*", r"\1", word) for word in arguments if word != "-m"
        ]  # of a sweep the first
        words = [word.replace("model=NAME", "model=tcn") for word in words if not word.startswith("hydra")]
        if any(word.startswith("data.path=") for word in words) and not any(word.startswith("data=") for word in words):
            words.insert(0, "data=audio")  # which the command infers from the folder
        compose(*words, command=name)


@pytest.mark.slow
def test_the_python_of_the_docs_runs(compose, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, 1, 50)).astype("f4")
    np.savez(tmp_path / "a.npz", X=X, y=np.arange(24) % 2, split=np.zeros(24, int))
    small = ("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "trainer.max_epochs=1")
    with contextlib.redirect_stdout(io.StringIO()):
        train_in(compose("data=npz", f"data.path={tmp_path / 'a.npz'}", *small, *CLOSED_FORM), tmp_path / "run")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {"RUN": tmp_path / "run", "X": X}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)  # what a reader would paste
    assert len(names["classifier"].predict(names["X"])) == 60


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_the_commands_on_new_series_run(compose, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y = np.arange(60) % 2
    X = np.random.default_rng(0).normal(size=(60, 1, 200)).astype("f4")
    X[y == 1] += 2 * np.sin(np.arange(200) / 3).astype("f4")
    np.savez("new.npz", X=X, y=y, split=np.zeros(60, int), classes=np.array(["well", "fault"]), fs=100.0)
    with contextlib.redirect_stdout(io.StringIO()):
        train_in(
            compose("data=npz", f"data.path={tmp_path / 'new.npz'}", "model=closed_form", *CLOSED_FORM), Path("RUN")
        )
    publish(runs := collect([Path("RUN")])[0], Path("TABLE/records"))
    os.mkfifo("sensor.txt")
    sensor = threading.Thread(target=lambda: Path("sensor.txt").write_text("0.5\n" * 300))
    sensor.start()
    ran = 0
    for page in ("predict.md", "report.md"):
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL):
            for line in block.strip().splitlines():
                name, *arguments = shlex.split(line.replace("DATA/MODEL/seedS-HASH", runs[0].job))
                assert name == "krontime"
                Path("classes.csv").unlink(missing_ok=True)
                with contextlib.redirect_stdout(io.StringIO()) as screen:
                    cli.main(arguments)
                ran += 1
                if "follow=true" in arguments:
                    assert len(screen.getvalue().splitlines()) == 4  # names, and windows from 0, 50 and 100
    sensor.join()
    assert ran >= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_audio", "reading_an_ecg", "a_papers_table"])
def test_a_notebook_runs(name):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", 4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()


def test_every_notebook_is_linked_and_stored_with_what_it_printed():
    page = (ROOT / "docs" / "notebooks.md").read_text()
    notebooks = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == 3
    for path in notebooks:
        assert f"(notebooks/{path.name})" in page
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert all(cell["execution_count"] for cell in cells)
        assert any(cell["outputs"] for cell in cells)
