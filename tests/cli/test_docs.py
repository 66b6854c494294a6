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
    os.mkfifo("sensor.txt")
    sensor = threading.Thread(target=lambda: Path("sensor.txt").write_text("0.5\n" * 300))
    sensor.start()
    ran = 0
    for page in ("predict.md", "report.md"):
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL):
            for line in block.strip().splitlines():
                name, *arguments = shlex.split(line)
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
@pytest.mark.parametrize(
    "name",
    [
        "own_audio",
        pytest.param("reading_an_ecg", marks=pytest.mark.thorough),
        pytest.param("a_papers_table", marks=pytest.mark.thorough),
    ],
)
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
