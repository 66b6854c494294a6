"""The wheel stands on its own: installed elsewhere, it trains outside the checkout with the configs it carries."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from krontime import __version__
from krontime.runs.record import Record

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment = {**kept, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, output: Path) -> Path:
    """A wheel or sdist of a source tree, made with the tools that are installed."""
    run(sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", output, source, cwd=output.parent)
    (built,) = output.iterdir()
    return built


@pytest.fixture(scope="module", params=["checkout", "sdist"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout, or from the sdist of the checkout."""
    folder = tmp_path_factory.mktemp(request.param)
    source = ROOT
    if request.param == "sdist":
        with tarfile.open(build("sdist", ROOT, folder / "sdist")) as archive:
            archive.extractall(folder, filter="data")
        source = folder / f"krontime-{__version__}"
    return build("wheel", source, folder / "wheel")


def test_the_wheel_holds_the_package_and_the_configs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        f"krontime/{path.relative_to(base.parent if base.name == 'configs' else base).as_posix()}": path.read_bytes()
        for base, suffixes in ((ROOT / "src" / "krontime", (".py", ".j2")), (ROOT / "configs", (".yaml",)))
        for path in base.rglob("*")
        if path.suffix in suffixes
    }
    plugins = ROOT / "src" / "hydra_plugins"
    expected |= {path.relative_to(ROOT / "src").as_posix(): path.read_bytes() for path in plugins.rglob("*.py")}
    assert held == expected


def test_the_wheel_trains_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # Dependencies come from the environment of the tests; a path in a .pth file does not bring the editable krontime.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet")
    run(*install, "--disable-pip-version-check", wheel, cwd=tmp_path)

    printed = run(
        python, "-c", "from krontime.config.files import config_dir; print(config_dir())", cwd=tmp_path
    ).strip()
    assert Path(printed) == packages / "krontime" / "configs"
    krontime = folder / "bin" / "krontime"
    assert "krontime*" in run(krontime, "train", "--help", cwd=tmp_path)
    screen = run(
        *(krontime, "train", "data=synthetic", "data.source.num_train=24", "data.source.num_test=8"),
        *("data.source.length=512", "model.d_model=8", "model.num_layers=1", "tokenizer=linear"),
        *("trainer.max_epochs=1", "optim.min_batches_per_epoch=1", f"paths.cache={tmp_path / 'cache'}"),
        cwd=tmp_path,
    )
    assert "completed" in screen
    (path,) = (tmp_path / "outputs").rglob("record.json")
    record = Record.read(path)
    assert record.git is None
    assert record.versions["krontime"] == __version__
    assert "test split scored again" in run(krontime, "evaluate", f"run={path.parent}", cwd=tmp_path)
