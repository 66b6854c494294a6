"""Two processes that train together: as one with the same batches, and what becomes of a job that loses one."""

import signal
from pathlib import Path
from types import ModuleType

import pytest

from krontime.models.kernel_ridge import part
from krontime.runs import run
from krontime.runs.record import Record, Status


@pytest.fixture(scope="module")
def ranks(matrix: ModuleType) -> ModuleType:
    """`rank_matrix.py` as a module; it imports `kill_matrix`."""
    import rank_matrix

    return rank_matrix


@pytest.fixture(scope="module")
def folder(ranks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ranks")
    ranks.write_data(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    "on",
    [("EMA", "time limit", "unequal lengths", "closed form"), (), ("EMA",), ("time limit",), ("unequal lengths",)],
    ids=" and ".join,
)
def test_two_processes_end_as_one_with_the_same_batches(ranks: ModuleType, folder: Path, on: tuple[str, ...]) -> None:
    """docs/distributed.md has all combinations."""
    compared = ranks.compare(folder, on)
    assert compared.difference <= ranks.TOLERANCE
    assert compared.scores[0] == compared.scores[1]
    assert compared.num_steps >= 4


@pytest.mark.slow
def test_two_processes_share_the_fit_of_a_closed_form_to_many_series(
    ranks: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "MAX_EXACT", 10)
    monkeypatch.setattr(part, "_SERIES_AT_ONCE", 9)
    compared = ranks.compare(folder, ("closed form",))
    assert compared.difference <= ranks.TOLERANCE
    assert compared.scores[0] == compared.scores[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "harm"),
    [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)],
    ids=["first killed", "other killed", "other hangs"],
)
def test_a_lost_process_ends_the_job_with_a_message_and_it_resumes(
    ranks: ModuleType, folder: Path, tmp_path: Path, rank: int, harm: signal.Signals
) -> None:
    chosen = (*ranks.overrides(folder, ("EMA", "unequal lengths")), *ranks.TWO, "checkpoint_every_n_steps=1")
    options = ranks.config(folder, (*chosen, "trainer.strategy.timeout_s=4"))
    lost, whole = tmp_path / "lost", tmp_path / "whole"
    harmed = ranks.harmed_at(6, rank, harm, lambda: run.train_in(options, lost))
    done = ranks.together(harmed, grace_s=60.0 if harm == signal.SIGKILL else 1.0)
    assert done[rank][0] == -signal.SIGKILL
    status, text = done[1 - rank]
    assert status == 1, text
    assert "UserError: another process of this training ended or can't be reached" in text
    if rank == 1:
        record = Record.read(lost / "record.json")
        assert record.status is Status.FAILED
    for target in (lost, whole):
        for status, text in ranks.together(lambda target=target: run.train_in(options, target)):
            assert status == 0, text
            assert ("Resuming from" in text) == (target is lost)
    assert all(ranks.difference(lost, whole, name) == 0 for name in ("last.ckpt", "best.ckpt"))
    assert ranks.shown(lost) == ranks.shown(whole)
