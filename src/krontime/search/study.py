"""An Optuna study that several processes share through one folder, and that outlives all of them.

Trials are kept in Optuna's journal file. Who works on a trial holds the operating system's lock on a file of its own,
which ends with the process: a trial that is marked as running and whose lock is free was cut off, and is tried again.
Options that have ended a process twice are not: they might end each one that tries them. Optuna's own heartbeat and
retry need a database; its journal storage has none, and a lock shows at once what a heartbeat shows after a minute.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from krontime.errors import UserError
from krontime.search.space import Space

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

JOURNAL = "journal.log"
STUDY = "search"
TRIALS = "trials"
OVERRIDES = "overrides"
"""User attribute of a trial: the overrides that it ran with."""
PROBLEM = "problem"
"""User attribute of a trial: why its options did not work (out of memory, diverged, refused, an error)."""
FAILURES = "failures"
"""User attribute of a trial: how often its options have ended a process before."""
MAX_FAILURES = 2
"""Failures after which options are not tried again."""
DIED = "its process died, as did one before"
ABOUT = "about"
"""User attribute of a study: what distinguishes one search from another."""


class ClaimedTrial(NamedTuple):
    """A trial that this process works on.

    Attributes:
        trial: Optuna's.
        overrides: its options.
        folder: for its files.
        lock: held until the trial has ended.
    """

    trial: "Trial"
    overrides: list[str]
    folder: Path
    lock: FileLock


class SharedStudy:
    """The study in a folder.

    Args:
        folder: of the search.
        direction: `minimize` or `maximize`.
        about: plain values that two processes must agree on.
        sampler: makes the sampler of the trial with a given number.
        pruner: of all trials.

    Attributes:
        study: Optuna's.
        is_exhausted: whether a sampler that counts has said that all options were tried.

    Raises:
        UserError: the folder holds another search.
    """

    def __init__(
        self,
        folder: Path,
        *,
        direction: str,
        about: dict[str, Any],
        sampler: Callable[[int], "BaseSampler"],
        pruner: Any,
    ) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.sampler = sampler
        self.is_exhausted = False
        self._lock = FileLock(folder / "search.lock")
        with self._lock:
            self._storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=STUDY,
                direction=direction,  # type: ignore[arg-type]
                pruner=pruner,
                load_if_exists=True,
            )
            self.study.stop = self._stop  # type: ignore[method-assign]  # Optuna's own raises outside `optimize`
            stored = self.study.user_attrs.get(ABOUT)
            if stored is None:
                self.study.set_user_attr(ABOUT, about)
            elif stored != about:
                changed = ", ".join(key for key in about if stored.get(key) != about[key])
                raise UserError(
                    f"folder={str(folder)!r}: the search there has another {changed}; expected the same command (only "
                    "search.num_trials, sampler and pruner may change), or another folder"
                )

    def next(self, space: Space, num_trials: int) -> ClaimedTrial | None:
        """Begin a trial; None where enough have ended or are running, in whichever process, or all were tried."""
        from optuna.trial import TrialState

        with self._lock:
            self._give_up_dead()
            taken = self.ended() + self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if len(taken) >= num_trials:
                return None
            self.study.sampler = self.sampler(len(self.study.get_trials(deepcopy=False)))
            if self._has_tried_all():
                return None
            trial = self.study.ask()
            lock = self._trial_lock(trial.number)
            lock.acquire(timeout=0)
            overrides = space.suggest(trial)
            trial.set_user_attr(OVERRIDES, overrides)
        return ClaimedTrial(trial, overrides, self.folder / TRIALS / f"{trial.number:05d}", lock)

    def end(self, task: ClaimedTrial, *, value: float | None = None, problem: str | None = None) -> None:
        """Note how a trial ended: with a value, or stopped early, as bad or since its options did not work."""
        from optuna.trial import TrialState

        if problem is not None:
            task.trial.set_user_attr(PROBLEM, problem)
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self.study.tell(task.trial, value, state=state)
        self._unlock(task.lock)

    def _stop(self) -> None:
        self.is_exhausted = True

    def _has_tried_all(self) -> bool:
        """Ask the sampler whether it has any options left, also where an earlier command has tried the last of them."""
        from optuna.samplers import GridSampler
        from optuna.trial import TrialState

        self.is_exhausted = False
        sampler, ended = self.study.sampler, self.ended()
        if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return False
        if isinstance(sampler, GridSampler):  # the last trial may be of another sampler, and so of no grid
            self.is_exhausted = sampler.is_exhausted(self.study)
        elif ended:
            sampler.after_trial(self.study, ended[-1], ended[-1].state, ended[-1].values)
        return self.is_exhausted

    def is_last_try(self, task: ClaimedTrial) -> bool:
        """Whether the options of a trial have failed so often that they are not tried again if they fail now."""
        return _is_last_try(task.trial)

    def give_up(self, task: ClaimedTrial, *, has_failed: bool = False) -> None:
        """Leave a trial to whoever works on this search next.

        Args:
            task: of the trial.
            has_failed: whether its options ended the process; they may be interrupted as often as one likes.
        """
        with self._lock:
            self._try_again(task.trial, has_failed=has_failed)
        self._unlock(task.lock)

    def ended(self) -> list["FrozenTrial"]:
        """Trials that ran to their end, or were stopped early."""
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    def completed(self) -> list["FrozenTrial"]:
        """Trials that ran to their end."""
        return [trial for trial in self.ended() if trial.state.name == "COMPLETE"]

    def _give_up_dead(self) -> None:
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = self._trial_lock(trial.number)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue  # a living process works on it
            if not self.study.get_trials(deepcopy=False)[trial.number].state.is_finished():  # nor has it just ended
                self._give_up_dead_trial(trial)
            self._unlock(lock)

    def _give_up_dead_trial(self, trial: "FrozenTrial") -> None:
        from optuna.trial import TrialState

        if not _is_last_try(trial):
            self._try_again(trial, has_failed=True)
            return
        study_id = self._storage.get_study_id_from_name(STUDY)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        self._storage.set_trial_user_attr(trial_id, PROBLEM, DIED)
        self.study.tell(trial.number, state=TrialState.PRUNED)

    def _try_again(self, trial: "Trial | FrozenTrial", *, has_failed: bool) -> None:
        """Mark a trial as failed, which does not count, and have its options tried again."""
        from optuna.trial import TrialState, create_trial

        stored = self.study.get_trials(deepcopy=False)[trial.number]
        self.study.tell(trial.number, state=TrialState.FAIL)
        if not stored.params:
            return
        # As `enqueue_trial` does, but with the place in its grid, which `GridSampler` asks of every trial.
        of_grid = {key: value for key, value in stored.system_attrs.items() if key in ("grid_id", "search_space")}
        again = create_trial(
            state=TrialState.WAITING,
            system_attrs={"fixed_params": stored.params, **of_grid},
            user_attrs={FAILURES: _failures(trial) + has_failed},
        )
        self.study.add_trial(again)

    def _trial_lock(self, number: int) -> FileLock:
        return FileLock(self.folder / TRIALS / f"{number:05d}.lock")

    def _unlock(self, lock: FileLock) -> None:
        with suppress(OSError):  # open files can't be removed everywhere
            Path(lock.lock_file).unlink()
        lock.release()


def _failures(trial: "Trial | FrozenTrial") -> int:
    return trial.user_attrs.get(FAILURES, 0)


def _is_last_try(trial: "Trial | FrozenTrial") -> bool:
    return _failures(trial) + 1 >= MAX_FAILURES
