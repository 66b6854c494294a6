"""What loggers are told of a run."""

import contextlib
import io
import time
import urllib.error
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from krontime.config.identity import config_hash
from krontime.errors import UserError
from krontime.runs import run
from krontime.training import equipment
from tests.cli.run.small import train


class TestLoggers:
    @pytest.mark.slow
    def test_several_at_once_or_one_or_none(self, config: Callable[..., Any], tmp_path: Path) -> None:
        for logger, expected in (("[csv,tensorboard]", {"csv", "tb"}), ("tensorboard", {"tb"}), ("[]", set())):
            folder = tmp_path / logger
            train(config("equal.npz", f"logger={logger}", "trainer.max_epochs=1"), folder)
            kinds = {"csv"} if (folder / "metrics.csv").is_file() else set()
            kinds |= {"tb"} if list(folder.rglob("events.out.tfevents*")) else set()
            assert kinds == expected

    def test_they_get_the_config_the_learning_rate_and_the_final_scores(
        self, config: Callable[..., Any], tmp_path: Path
    ) -> None:
        options = config("equal.npz", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
        record = train(options, tmp_path)
        rows = pd.read_csv(tmp_path / "metrics.csv")
        assert rows["lr-AdamW/pg1"].notna().sum() == 4  # 24 training series in batches of 6
        final = rows.iloc[-1]
        assert final["final/test/accuracy"] == pytest.approx(record.metrics.test["accuracy"])
        assert final["final/val/nll"] == pytest.approx(record.metrics.val["nll"])
        assert OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml")) == options

    def test_wandb_knows_a_run_by_its_config_unless_it_is_forced(
        self, config: Callable[..., Any], tmp_path: Path
    ) -> None:
        options = config("equal.npz", "logger=wandb")
        (logger,) = equipment.loggers(options, tmp_path / "seed0")
        assert logger.version == config_hash(options)
        assert logger.name == "krontime"  # the project
        (forced,) = equipment.loggers({**options, "force": True}, tmp_path / "seed0")
        assert forced.version is None

    @pytest.mark.slow
    def test_two_runs_in_one_process_are_two_to_wandb(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WANDB_SILENT", "true")
        for seed in (0, 1):
            options = config("equal.npz", "logger=[csv,wandb]", f"seed={seed}", "trainer.max_epochs=1")
            train(options, tmp_path / f"seed{seed}")
        ids = {path.name.rpartition("-")[2] for path in tmp_path.rglob("offline-run-*")}
        assert len(ids) == 2
        for seed in (0, 1):
            assert len(list((tmp_path / f"seed{seed}").rglob("offline-run-*/*.wandb"))) == 1
            assert (tmp_path / f"seed{seed}" / "metrics.csv").is_file()

    def test_wandb_gets_pictures_predictions_and_a_group_and_the_screen_says_how_to_send_them(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WANDB_SILENT", "true")
        monkeypatch.setenv("WANDB_MODE", "offline")
        folder = tmp_path / "a run"
        with contextlib.redirect_stdout(io.StringIO()) as screen:
            run.train_in(config("equal.npz", "logger=wandb", "trainer.max_epochs=1"), folder)
        (offline,) = (folder / "wandb").glob("offline-run-*")
        (written,) = offline.glob("*.wandb")
        deadline = time.monotonic() + 60  # wandb's own process writes what it was told after it said that it knows
        while b"equal/krontime" not in written.read_bytes():
            assert time.monotonic() < deadline, written.read_bytes()[:1000]
            time.sleep(0.1)
        names = {path.relative_to(offline / "files").as_posix() for path in offline.glob("files/**/*")}
        for start in ("images/confusion_matrix", "images/attention/layer1_level2", "table/test_predictions"):
            assert any(name.startswith(f"media/{start}") for name in names), names
        assert f"wandb sync '{folder / 'wandb'}'/offline-run-*" in screen.getvalue()

    def test_a_run_that_fails_leaves_no_wandb_run_open(
        self, config: Callable[..., Any], tmp_path: Path, interrupted_at: Callable[..., None]
    ) -> None:
        import wandb

        interrupted_at(1, RuntimeError("something broke"))
        with pytest.raises(RuntimeError, match="something broke"):
            train(config("equal.npz", "logger=wandb"), tmp_path / "run")
        assert wandb.run is None


class TestWandbOnline:
    """What is wrong is said before the data is read."""

    @pytest.fixture(autouse=True)
    def nothing_is_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def refuse(*_: Any) -> None:
            raise AssertionError("read")

        import wandb

        wandb.teardown()  # it keeps the settings that an earlier test left
        monkeypatch.setattr(run.prepare, "prepare", refuse)
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)

    @pytest.fixture
    def online(self, config: Callable[..., Any]) -> dict[str, Any]:
        return config("equal.npz", "logger=[csv,wandb]", "logger.wandb.offline=false")

    def test_without_a_key(self, online: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wandb.login", lambda **_: False)
        with pytest.raises(UserError, match=r"logger\.wandb\.offline=False: there is no API key; expected one"):
            train(online, tmp_path / "run")

    @pytest.mark.parametrize("key", ["short", "a b", "x" * 39])
    def test_with_what_is_no_key(
        self, online: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        monkeypatch.setenv("WANDB_API_KEY", key)
        with pytest.raises(UserError, match=r"wandb refuses its settings \(.*WANDB_API_KEY"):
            train(online, tmp_path / "run")

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://nowhere.invalid", "ftp//x"])
    def test_out_of_reach(
        self, online: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        monkeypatch.setattr("wandb.login", lambda **_: True)
        monkeypatch.setattr("wandb.setup", lambda: SimpleNamespace(settings=SimpleNamespace(base_url=url)))
        with pytest.raises(UserError, match=rf"{url} can't be reached"):
            train(online, tmp_path / "run")

    def test_with_a_key_that_is_refused(
        self, online: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import wandb

        def login(*, verify: bool, prompt: bool) -> bool:
            if verify:
                raise wandb.errors.AuthenticationError("the key is no longer valid")
            return True

        def answering(url: str, **_: Any) -> None:
            raise urllib.error.HTTPError(url, 404, "Not Found", Message(), None)

        monkeypatch.setattr("wandb.login", login)
        monkeypatch.setattr("urllib.request.urlopen", answering)
        with pytest.raises(UserError, match=r"refuses the API key \(the key is no longer valid"):
            train(online, tmp_path / "run")

    @pytest.mark.parametrize("mode", ["disabled", "offline", "dryrun"])
    def test_where_nothing_is_sent_nothing_is_looked_at(
        self, online: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        monkeypatch.setenv("WANDB_MODE", mode)
        with pytest.raises(AssertionError, match="read"):
            train(online, tmp_path / "run")
        assert len(equipment.loggers(online, tmp_path)) == (1 if mode == "disabled" else 2)
