"""What a record says of machine, versions and commit is what is there."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from krontime.runs import environment as module
from krontime.runs.environment import environment, git_state


def git(root, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_environment_fits_the_record(make_record):
    described = environment()
    assert set(described) == {"device", "versions", "git"}
    record = make_record(**described)
    assert record.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record.versions["numpy"] == np.__version__
    assert record.device.kind == "cpu"
    assert record.device.name
    assert record.device.num_threads == torch.get_num_threads()


def test_versions_are_read_without_importing_the_packages():
    code = (
        "import sys; from krontime.runs.environment import environment; environment(); "
        "print([m for m in ('lightning', 'aeon', 'torchmetrics', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("torch", "no-such-distribution"))
    assert set(environment()["versions"]) == {"python", "torch"}


def test_git_state_tells_commit_and_changes(tmp_path):
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    state = git_state(tmp_path)
    assert state.commit == git(tmp_path, "rev-parse", "HEAD")
    assert not state.dirty
    (tmp_path / "notes.txt").write_text("no code")
    assert not git_state(tmp_path).dirty
    (tmp_path / "src" / "new.py").write_text("2")
    assert git_state(tmp_path).dirty
    (tmp_path / "src" / "new.py").unlink()
    (tmp_path / "src" / "a.py").write_text("3")
    assert git_state(tmp_path).dirty


def test_git_state_is_that_of_the_folder_also_inside_a_hook(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init", "-q")
        git(tmp_path / name, "commit", "-qm", name, "--allow-empty")
    expected = git_state(tmp_path / "one").commit
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "two" / ".git"))
    assert git_state(tmp_path / "one").commit == expected


def test_git_state_without_git_is_none(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_on_cuda():
    described = environment("cuda")
    assert described["device"].name == torch.cuda.get_device_name()
    assert "cuda" in described["versions"]
