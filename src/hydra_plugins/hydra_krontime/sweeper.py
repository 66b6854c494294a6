"""Hydra's basic sweeper, made to last: it lists its jobs on disk, shares them with others, and says how they ended."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

from krontime.config.hydra_internals import BasicSweeper, error_of

if TYPE_CHECKING:
    from krontime.config.suites import Suite
    from krontime.runs.sweep import Progress

POLL_S = 0.5


@dataclass
class KrontimeSweeperConf:
    _target_: str = "hydra_plugins.hydra_krontime.sweeper.KrontimeSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="krontime", node=KrontimeSweeperConf, provider="krontime")


class KrontimeSweeper(BasicSweeper):
    """Runs every job of a grid, whatever becomes of the others.

    A job that another process is training in is left to it, and looked at again at the end: it is then done, or, where
    the other process gave up, run here. So several sweeps over one folder share the work.

    Jobs in which a process was killed come last, those that were begun last at the very end: where one of them kills
    each process that runs it, as for want of memory, all others are done before.
    """

    def sweep(self, arguments: list[str]) -> list[JobReturn | None]:
        """Run the jobs of a command line.

        Returns:
            What each job returned; None where its launcher gave it up.

        Raises:
            UserError: a job can't be composed, and none was begun; or not all jobs are done at the end.
        """
        from krontime.config.suites import KEY, with_suites
        from krontime.console import begin_sweep, show
        from krontime.errors import UserError

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parser.parse_overrides([*self._parse_config(), *arguments])
        chosen = [override for override in given if override.key_or_group == KEY]
        [jobs] = self.split_arguments([override for override in given if override not in chosen], None)
        if chosen:
            jobs = with_suites(self._suites(chosen), jobs)
        batches = list(self.split_overrides_to_chunks(jobs, self.max_batch_size or len(jobs)))
        run = _SweepRun(self, jobs)
        run.write()
        begin_sweep(len(run.overrides))
        try:
            order, begun = run.order(), 0
            for batch in batches:
                run.launch(order[begun : begun + len(batch)], begun)
                begun += len(batch)
            run.finish_busy()
        except KeyboardInterrupt:
            run.write()
            show(run.summary()[1])
            raise
        run.write()
        run.log()
        run.note()
        is_done, summary = run.summary()
        if not is_done:
            raise UserError(summary)
        show(summary)
        return run.returns

    def _suites(self, overrides: Sequence[Override]) -> dict[str, "Suite"]:
        """The suites that `+suite=NAME,NAME` names.

        Raises:
            UserError: there is none of a name, or one is wrong.
        """
        from krontime.config.suites import KEY, Suite
        from krontime.errors import UserError

        assert self.hydra_context is not None
        loader: Any = self.hydra_context.config_loader
        known = loader.get_group_options(KEY)
        suites = {}
        for override in overrides:
            value = override.value()
            names = value.list if isinstance(value, ChoiceSweep) else [value]
            for name in map(str, names):
                if override.is_delete() or name not in known:
                    raise UserError(f"{override.input_line}: expected +suite=NAME, one of {', '.join(known)}")
                loaded = loader.repository.load_config(f"{KEY}/{name}").config
                suites[name] = Suite.parse(name, OmegaConf.to_container(loaded))
        return suites

    def folder(self, overrides: Sequence[str], number: int) -> tuple[Path, str]:
        """The sweep's folder and the run folder in it that Hydra will give to a job.

        Raises:
            UserError: the job's config lacks a value.
        """
        from krontime.config.resolve import plain

        config = self.composed(overrides)
        plain(config)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return Path(str(OmegaConf.select(config, "hydra.sweep.dir"))), str(
            OmegaConf.select(config, "hydra.sweep.subdir")
        )

    def composed(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job."""
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))


class _SweepRun:
    """The jobs of one sweep, and what has become of each in this process."""

    def __init__(self, sweeper: KrontimeSweeper, overrides: Sequence[Sequence[str]]) -> None:
        from krontime.runs.sweep import Job

        assert sweeper.launcher is not None
        self.sweeper = sweeper
        self.launcher: Any = sweeper.launcher
        self.overrides = [list(job) for job in overrides]
        folders = [sweeper.folder(job, number) for number, job in enumerate(self.overrides)]
        self.folders = [root / folder for root, folder in folders]
        self.returns: list[JobReturn | None] = [None] * len(folders)
        self.errors: dict[int, Exception] = {}
        self.by_root: dict[Path, list[Job]] = {}
        self.numbers: dict[Path, list[int]] = {}  # by folder: overrides that name it twice are one job
        for number, (root, folder) in enumerate(folders):
            if root / folder not in self.numbers:
                job = Job(folder=Path(folder).as_posix(), overrides=self.overrides[number])
                self.by_root.setdefault(root, []).append(job)
            self.numbers.setdefault(root / folder, []).append(number)

    def order(self) -> list[int]:
        """The jobs in the order that they are run in: see `KrontimeSweeper`."""
        from krontime.runs.lock import killed_at

        numbers = list(range(len(self.folders)))
        killed = {number: began for number in numbers if (began := killed_at(self.folders[number])) is not None}
        if not killed or self._is_named_by_number(next(iter(killed))):
            return numbers
        return sorted(numbers, key=lambda number: killed.get(number, 0.0))

    def _is_named_by_number(self, number: int) -> bool:
        """Whether a job in another place of the order would have another folder."""
        return Path(*self.sweeper.folder(self.overrides[number], len(self.folders))) != self.folders[number]

    def launch(self, numbers: Sequence[int], first: int) -> None:
        """Run some jobs; what one raises is kept, and stops no other.

        Args:
            numbers: of the jobs.
            first: what Hydra is to call the first of them.
        """
        from krontime.runs.sweep import JobState, progress

        try:
            returns = self.launcher.launch([self.overrides[number] for number in numbers], first)
        except Exception as error:  # a launcher's process died, and what it would have returned with it
            lost = [number for number in numbers if progress(self.folders[number]).state is not JobState.DONE]
            self.errors |= dict.fromkeys(lost, error)
            return
        for number, returned in zip(numbers, returns, strict=True):
            self.returns[number] = returned
            self.errors.pop(number, None)
            if returned.status is JobStatus.FAILED:
                self.errors[number] = error_of(returned)

    def finish_busy(self) -> None:
        """See the jobs to their end that other processes were training."""
        from krontime.console import show
        from krontime.runs.lock import Busy, is_held

        is_told = False
        while busy := [number for number, error in self.errors.items() if isinstance(error, Busy)]:
            free = [number for number in busy if not is_held(self.folders[number])]
            for number in free:
                self.launch([number], number)
            if not free:
                if not is_told:
                    show(f"Waiting for {len(busy)} of {len(self.folders)} jobs that another process is running")
                    is_told = True
                time.sleep(POLL_S)

    def error(self, run_dir: Path) -> Exception | None:
        """What the job of a folder raised."""
        return next((self.errors[number] for number in self.numbers[run_dir] if number in self.errors), None)

    def progress(self, run_dir: Path) -> "Progress":
        """How far the job of a folder has come, what it raised here included."""
        from krontime.errors import UserError
        from krontime.runs.sweep import JobState, first_line, progress

        seen = progress(run_dir)
        if (error := self.error(run_dir)) and seen.state in (JobState.DONE, JobState.TO_DO):
            # failed, though it may be done: its data has changed since
            reason = "; ".join(error.problems) if isinstance(error, UserError) else first_line(str(error))
            return seen._replace(state=JobState.FAILED, error=reason)
        return seen

    def write(self) -> None:
        """List the jobs on disk, with the errors of those that left nothing else; not where every job was refused."""
        from krontime.errors import UserError
        from krontime.runs.sweep import JobState, Sweep, progress

        def is_refused(run_dir: Path) -> bool:
            return isinstance(self.error(run_dir), UserError) and progress(run_dir).state is JobState.TO_DO

        for root, jobs in self.by_root.items():
            listed = [
                job.model_copy(update={"error": str(error) if (error := self.error(root / job.folder)) else None})
                for job in jobs
            ]
            if all(is_refused(root / job.folder) for job in jobs):
                Sweep(jobs=listed).remove(root)
                continue
            try:
                Sweep(jobs=listed).write(root)
            except OSError as error:
                raise UserError(
                    f"{root}: cannot be written ({error.strerror}); expected paths.output=FOLDER to be writable"
                ) from error

    def log(self) -> None:
        """Give Weights & Biases, where the jobs log to it, a run with a table of them for each output folder."""
        from krontime.config import resolve
        from krontime.console import show
        from krontime.runs.screen import sync_command
        from krontime.runs.sweep import Sweep
        from krontime.training import equipment

        config = resolve.plain(self.sweeper.composed(self.overrides[0]))
        options = equipment.wandb_options(config)
        if options is None:
            return
        import pandas as pd

        from krontime.runs.wandb_log import log_sweep, of_wandb

        for root, jobs in self.by_root.items():
            rows = []
            for job in jobs:
                state, record, error = self.progress(root / job.folder)
                scores = record.metrics.test if record else {}
                rows.append(
                    {
                        "job": job.folder,
                        "overrides": " ".join(job.overrides),
                        "state": str(state),
                        "error": error,
                        **{f"test/{name}": score for name, score in scores.items()},
                    }
                )
            sweep = Sweep(jobs=jobs).id
            named = {**options, "name": f"sweep/{sweep}", "group": options["group"] or "sweeps", "id": f"sweep-{sweep}"}
            try:
                for logger in of_wandb(equipment.loggers({**config, "logger": {"wandb": named}}, root)):
                    log_sweep(logger, pd.DataFrame(rows))
            finally:
                equipment.finish_wandb()
            if options["offline"]:
                show(f"Next    {sync_command(root)}")

    def note(self) -> None:
        """Note each job for `json=true`."""
        from krontime.console import result

        jobs = []
        for root, listed in self.by_root.items():
            for job in listed:
                state, record, error = self.progress(root / job.folder)
                scores = record.metrics.model_dump() if record else None
                jobs.append(
                    {
                        "run": root / job.folder,
                        "overrides": job.overrides,
                        "state": state,
                        "error": error,
                        "metrics": scores,
                    }
                )
        result(jobs=jobs)

    def summary(self) -> tuple[bool, str]:
        """Whether all jobs are done, and how many are; which are not and why, and how to run those."""
        from krontime.runs.sweep import JobState, counts, varied

        names = varied([job for jobs in self.by_root.values() for job in jobs])
        folders = [root / job.folder for root, jobs in self.by_root.items() for job in jobs]
        lines, states = [], []
        for name, folder in zip(names, folders, strict=True):
            state, _, reason = self.progress(folder)
            states.append(state)
            if state is not JobState.DONE:
                lines.append(f"  {state}: {name}{f': {reason}' if reason else ''}")
        size = f"{len(folders)} job{'s' if len(folders) > 1 else ''}"
        if not lines:
            return True, f"Sweep: {size}, all done"
        parts = ", ".join(f"{count} {state}" for state, count in counts(states).items() if count)
        roots = [os.fspath(root) for root in self.by_root]
        outputs = roots[0] if len(roots) == 1 else f"[{','.join(roots)}]"
        lines.insert(0, f"the sweep has {size}: {parts}")
        lines.append(f"the same command runs the rest; krontime sweep-status outputs={outputs} looks at it")
        return False, "\n".join(lines)
