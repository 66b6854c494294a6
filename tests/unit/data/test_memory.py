"""Memory that can still be had is the machine's, or what the nearest limit leaves."""

from pathlib import Path

import psutil
import pytest

from krontime.data import memory
from krontime.data.memory import available_memory_bytes, require_memory

MIB = 2**20


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture(autouse=True)
def no_limit_of_the_process(monkeypatch):
    monkeypatch.setattr(memory, "_left_to_process", lambda: iter(()))


def entered(root: Path, line: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line + "\n")


V2 = {"memory__max": 64 * MIB, "memory__current": 24 * MIB}
V1 = {"memory__limit_in_bytes": 64 * MIB, "memory__usage_in_bytes": 24 * MIB}


@pytest.mark.parametrize("below", ["", "slurm/job_7/step_0"])
def test_a_limit_of_a_group_of_version_2_counts(tmp_path, below):
    entered(tmp_path, f"0::/{below}")
    group(tmp_path / "sys/fs/cgroup" / below, **V2, memory__stat=f"anon 1\ninactive_file {4 * MIB}")
    assert available_memory_bytes(tmp_path) == 44 * MIB


@pytest.mark.parametrize("below", ["docker/abc", "slurm/uid_1/job_7"])
def test_a_limit_of_a_group_of_version_1_counts_inside_and_outside_of_a_container(tmp_path, below):
    entered(tmp_path, f"9:cpu,memory:/{below}")
    inside = below.startswith("docker")  # where the mount shows the container's own group at its top
    folder = tmp_path / "sys/fs/cgroup/memory" / ("" if inside else below)
    group(folder, **V1, memory__stat=f"total_inactive_file {MIB}")
    assert available_memory_bytes(tmp_path) == 41 * MIB


def test_the_nearest_of_several_limits_counts(tmp_path):
    entered(tmp_path, "0::/a/b")
    group(tmp_path / "sys/fs/cgroup/a/b", memory__max="max", memory__current=MIB)
    group(tmp_path / "sys/fs/cgroup/a", memory__max=30 * MIB, memory__current=20 * MIB)
    group(tmp_path / "sys/fs/cgroup", memory__max=90 * MIB, memory__current=20 * MIB)
    assert available_memory_bytes(tmp_path) == 10 * MIB


def test_without_limits_it_is_what_the_machine_has(tmp_path, monkeypatch):
    machine = psutil.virtual_memory()._replace(available=123 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert available_memory_bytes(tmp_path) == 123 * MIB
    entered(tmp_path, "0::/")
    assert available_memory_bytes(tmp_path) == 123 * MIB
    group(tmp_path / "sys/fs/cgroup", memory__max=5 * MIB, memory__current=9 * MIB)
    assert available_memory_bytes(tmp_path) == 0


def test_a_limit_of_the_process_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_left_to_process", lambda: iter((7 * MIB,)))
    assert available_memory_bytes(tmp_path) == 7 * MIB
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 7 * MIB)
    with pytest.raises(ValueError, match=r"takes 1\.0 GiB of memory, and 0\.0 are available"):
        require_memory(2**30)
