"""What is imported when: a command pays for what it does, and the first line of all comes before any of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

NUMERICS = ("torch", "lightning", "numpy", "pandas", "scipy", "sklearn", "aeon", "matplotlib")
TRAINING = ("lightning", "torchmetrics", "aeon", "numba", "matplotlib", "statsmodels", "optuna", "wandb")
NEVER_IN_TRAINING = ("aeon", "numba", "statsmodels", "optuna", "wandb", "captum", "soundfile")

SMALL = (
    *("data=npz", "data.path=a.npz", "model=tcn", "model.channels=4", "model.num_levels=2", "trainer.max_epochs=1"),
    *("trainer.enable_progress_bar=false", "paths.output=runs"),
)

STEPS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("data",), NUMERICS),
    (("sweep-status", "outputs=."), NUMERICS),
    (("train", "model=nothing"), NUMERICS),
    (("plan", "length=512", "model=tcn"), TRAINING),
    (("data", "data=npz", "data.path=a.npz"), TRAINING),
    (("train", *SMALL), NEVER_IN_TRAINING),
)
"""Commands that follow each other in one process, and what none of them up to there may have imported."""

PROBE = """
import contextlib, io, json, sys
from krontime import cli
loaded = []
for arguments, names in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            cli.main(arguments)
    loaded.append([name for name in names if name in sys.modules])
print(json.dumps(loaded))
"""


def test_commands_import_what_they_need(tmp_path: Path) -> None:
    series = np.random.default_rng(0).normal(size=(24, 1, 40))
    np.savez(tmp_path / "a.npz", X=series, y=np.arange(24) % 2, split=(np.arange(24) >= 16).astype(int))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(STEPS)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {" ".join(arguments): imported for (arguments, _), imported in zip(STEPS, report, strict=True)} == {
        " ".join(arguments): [] for arguments, _ in STEPS
    }
    assert list(tmp_path.glob("runs/*/*/*/record.json"))
