"""Reads what a number depends on besides the config: the machine, the versions, the commit."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krontime.runs.record import Device, GitState

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "krontime",
    "torch",
    "lightning",
    "torchmetrics",
    "aeon",
    "numpy",
    "numba",
    "pandas",
    "scikit-learn",
    "scipy",
    "hydra-core",
    "omegaconf",
)
"""Distributions whose version can change a number."""


def environment(device: "str | torch.device" = "cpu", count: int = 1) -> dict[str, Any]:
    """Return `device`, `versions` and `git` of this process, under the names that a record gives them.

    Args:
        device: the one in use, or torch's name of it, such as `cpu` or `cuda:1`.
        count: number of devices in use.
    """
    import torch

    used = torch.device(device)
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    name = used.type
    if used.type == "cuda":
        versions["cuda"] = str(torch.version.cuda)
        name = torch.cuda.get_device_name(used)
    elif used.type == "cpu":
        name = cpu_model()
    described = Device(
        kind=used.type,
        name=name,
        count=count,
        num_threads=torch.get_num_threads(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
    )
    return {"device": described, "versions": versions, "git": git_state()}


def environment_json(device: "str | torch.device") -> dict[str, Any]:
    """Return `environment` as plain JSON values, for a file that is no record."""
    return {key: getattr(value, "model_dump", lambda v=value: v)() for key, value in environment(device).items()}


def cpu_model() -> str:
    """Return the processor's name as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "unknown"


def git_state(root: Path | None = None) -> GitState | None:
    """Return the state of the checkout that this package runs from; None for a wheel, or where git can't say.

    Args:
        root: top folder of a checkout; by default the one that this file lies in.
    """
    root = root or Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    # Inside a git hook GIT_DIR and its like point at another repository.
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return GitState(
            commit=git("rev-parse", "HEAD"),
            dirty=bool(git("status", "--porcelain", "--untracked-files=all", "--", "src", "configs")),
        )
    except (OSError, subprocess.CalledProcessError):
        return None
