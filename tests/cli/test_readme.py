"""The README's commands, run for real from a new folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks() -> list[tuple[str, str]]:
    """`(language, text)` of the README's fenced blocks that have a language."""
    return re.findall(r"^```(bash|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(
        re.findall(r"\bmake ([a-z-]+)", "\n".join(re.findall(r"```bash.*?```|`make [a-z-]+`", README, re.DOTALL)))
    )
    assert named
    assert named <= targets


def test_every_file_that_the_readme_names_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    scripts = re.findall(r"\b(scripts/\w+\.sh)\b", README)
    assert links
    for path in links + scripts:
        assert (ROOT / path).exists(), path


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "2",
    }
    ran = 0
    for language, text in blocks():
        if "make " in text:
            continue  # set-up: what runs this test
        command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        ran += 1
    assert ran >= 3
    classes = (tmp_path / "classes.csv").read_text().splitlines()
    assert len(classes) == 41
    by_file = (tmp_path / "by_file.csv").read_text().splitlines()
    assert by_file[0] == "index,file,label,predicted,p_beep,p_hum"
    named = {row.split(",")[1]: row.split(",")[3] for row in by_file[1:]}
    assert sorted(named) == sorted(f"{('hum', 'beep')[number % 2]}{number}.wav" for number in range(40, 48))
    assert all(name.startswith(predicted) for name, predicted in named.items())
