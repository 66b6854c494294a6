"""What the measurements of this folder share: configs in plain types, and processes whose memory is watched."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil
from hydra import compose, initialize_config_dir

from krontime.config import resolve
from krontime.config.files import config_dir


def plain_config(command: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The config of a command in plain types."""
    resolve.register_resolvers()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return resolve.plain(compose(command, list(overrides)))


def watched(
    script: str, arguments: Sequence[str], while_it_runs: Callable[[subprocess.Popen[str]], Any] = lambda _: None
) -> tuple[int, str, int]:
    """Run a script in a process of its own.

    Args:
        script: its file.
        arguments: of its command line.
        while_it_runs: called again and again with the process.

    Returns:
        Its exit status, what it printed, and the highest resident memory in bytes that it was seen with.
    """
    process = subprocess.Popen([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True)
    seen, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, seen.memory_info().rss)
        except psutil.Error:
            break
        while_it_runs(process)
        time.sleep(0.01)
    assert process.stdout is not None
    text = process.stdout.read()
    return process.wait(), text, peak
