"""One thread, one cache folder for the whole session, and configs composed as the command line composes them."""

import copy
import functools
import gc
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from krontime.config import resolve
from krontime.config.files import config_dir

Compose = Callable[..., dict[str, Any]]


def pytest_collection_finish() -> None:
    """Keep what all tests import out of garbage collections, which took a quarter of the time of small runs."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures of a session have one thread, as tests have; no test reads or writes the user's own cache."""
    torch.set_num_threads(1)
    resolve.register_resolvers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRONTIME_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def parsed_once() -> Iterator[None]:
    """The text of a config file is parsed once, not by each of some thousand compositions: a quarter of their time."""
    parsed: dict[str, Any] = {}
    load = OmegaConf.load

    def remembered(file: Any) -> Any:
        if not isinstance(file, io.TextIOBase):
            return load(file)
        text = file.read()
        if text not in parsed:
            parsed[text] = load(io.StringIO(text))
        return copy.deepcopy(parsed[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", remembered)
        yield


@pytest.fixture(autouse=True)
def one_thread(environment: None) -> None:
    """Small tensors gain nothing from more threads; what first runs numba's in parallel sets torch's, too."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_stale_logging() -> Iterator[None]:
    """A command run in this process logs to the standard error that it found, which a test replaces by its own."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.setLevel(level)
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler and handler not in before:
            root.removeHandler(handler)


@pytest.fixture(scope="module")
def quick_plots() -> Iterator[None]:
    """Plots that are whole but for what would be drawn, which takes longer than all else of a small run."""
    from matplotlib.figure import Figure

    empty = io.BytesIO()
    Figure(figsize=(0.1, 0.1)).savefig(empty, format="png")

    def save(self: Figure, where: Any, **_: Any) -> None:
        if isinstance(where, str | os.PathLike):
            Path(where).write_bytes(empty.getvalue())
        else:
            where.write(empty.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture(scope="session")
def compose(environment: None) -> Compose:
    """`compose("data=synthetic", "seed=1")`: the plain, resolved config of `krontime train` with these overrides.

    Another command's config is asked for with `command="plan"`. Hydra takes a quarter of a second for one, so that
    each is composed once, and every test gets a copy of its own.
    """

    @functools.cache
    def once(command: str, overrides: tuple[str, ...], seen: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return resolve.plain(hydra_compose(command, list(overrides)))

    def composed(*overrides: str, command: str = "train") -> dict[str, Any]:
        seen = {
            key: value for key, value in os.environ.items() if key == "HOME" or key.startswith(("KRONTIME_", "XDG_"))
        }
        return copy.deepcopy(once(command, overrides, tuple(sorted(seen.items()))))

    return composed
