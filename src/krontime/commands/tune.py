"""The command `tune`: a search of options on validation, by Optuna.

A trial trains as a run does, and is scored by the metric that selects its checkpoint, at its best epoch. It leaves the
test split unread; who wants test scores trains the best config.
"""

import gc
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
from omegaconf import DictConfig

from krontime.commands.options import output_problems
from krontime.config import resolve, targets
from krontime.config.cross_checks import BETTER
from krontime.config.identity import config_hash
from krontime.config.schema import check_train
from krontime.config.signatures import argument_problems
from krontime.console import format_duration, result, show
from krontime.data.windows import is_cut
from krontime.errors import Terminated, UserError
from krontime.runs import load, prepare
from krontime.runs.failures import is_out_of_memory, terminated_by
from krontime.runs.network_fit import NetworkFit
from krontime.runs.sweep import first_line
from krontime.storage import expanded
from krontime.training import build, equipment
from krontime.training.quiet import quiet_lightning

if TYPE_CHECKING:
    from optuna import Trial

    from krontime.search.study import ClaimedTrial

log = logging.getLogger(__name__)

OWN_KEYS = ("search", "folder")
"""What the config of this command has beside that of `train`."""

_NO_YARDSTICK = ("scaling", "batch_size", "eval_batch_size", "num_workers")
"""Keys of `data` that change neither the validation series nor their labels."""

LEAST_TRIALS = 3
"""Trials in a row whose options don't work, with none that did, before a search is given up."""


def tune(config: DictConfig) -> float | None:
    """Run trials until as many as asked for have ended, then write the best config, a table and plots.

    Returns:
        The best value; None where no trial of the search has completed yet.

    Raises:
        UserError: the config or the search space cannot work, or the folder holds another search.
    """
    from hydra.core.hydra_config import HydraConfig

    search = Search(config, list(HydraConfig.get().overrides.task))
    search.run()
    return search.write()


class Search:
    """One search.

    Args:
        config: of the command.
        overrides: that it was composed from.

    Raises:
        UserError: see `tune`.
    """

    def __init__(self, config: DictConfig, overrides: Sequence[str]) -> None:
        options = resolve.plain(config)
        self.overrides = overrides
        self.options = {"space": {}, **options["search"]}  # there is none for a model without a file of its own
        self.folder = expanded(str(options["folder"]))
        self.base = {key: value for key, value in options.items() if key not in OWN_KEYS}
        self._check(options)

        from krontime.search.space import Space
        from krontime.search.study import SharedStudy

        self.space = Space(self.options["space"])
        self._check_space()
        self.metric: str = self.base["callbacks"]["checkpoint"]["monitor"]
        quiet_lightning()
        _quiet_optuna()
        if equipment.wandb_options(self.base) is not None:
            from krontime.runs.wandb_log import check_online

            check_online(self.base)
        job = prepare.prepare(self.base)
        if not any(key.partition(".")[0] == "closed_form" for key in self.options["space"]):
            _check_judged(self.base, job)
        self.study = SharedStudy(
            self.folder,
            direction="minimize" if BETTER[self.metric] == "min" else "maximize",
            about={
                "config": config_hash(self.base),
                "space": self.options["space"],
                "data": job.protocol.data_sha256,
            },
            sampler=self._sampler,
            pruner=targets.instantiate(self.options["pruner"], "pruner") if self.options["pruner"] else None,
        )

    def _check(self, options: Mapping[str, Any]) -> None:
        problems = targets.target_problems({"search": options["search"]})
        problems += [] if problems else argument_problems({"search": options["search"]})
        problems += [
            f"search.{key}={value!r}: expected keys with values"
            for key in ("sampler", "pruner", "space")
            if not isinstance(value := self.options[key], Mapping) and (key, value) != ("pruner", None)
        ]
        num_trials = self.options["num_trials"]
        if not isinstance(num_trials, int) or isinstance(num_trials, bool) or num_trials < 1:
            problems.append(f"search.num_trials={num_trials!r}: expected a whole number of at least 1")
        problems += [
            f"search.{key}={value!r}: there is no such key"
            for key, value in self.options.items()
            if key not in ("num_trials", "sampler", "pruner", "space")
        ]
        if self.base["force"]:
            problems.append("force=True: has no effect on a search; expected another folder to search anew")
        if not targets.has_network(self.base):
            problems.append(f"model={self.base['model']['name']}: expected a network, which is scored at each epoch")
        elif not _monitor(self.base):
            problems.append("callbacks.checkpoint.monitor=None: expected the validation metric to search by")
        try:
            check_train(self.base, is_multirun=True)
        except UserError as error:
            problems += error.problems
        problems += output_problems("folder", self.folder, is_folder=True)
        if problems:
            raise UserError(problems)

    def _check_space(self) -> None:
        """Compose each choice and each end of a range alone; what they are together is seen in the trials."""
        problems = []
        given = {text.lstrip("+~").partition("=")[0] for text in self.overrides}
        for key, text in self.space.ends():
            if key in given:
                problems.append(f"search.space.{key}: expected no override of it, since the search sets it")
                continue
            try:
                composed = self._composed([text])
                check_train(composed, is_multirun=True)
                if _yardstick(composed) != _yardstick(self.base):
                    problems.append(
                        f"search.space.{key}: expected no key that changes the validation series or their score, since "
                        "trials are compared by it"
                    )
            except UserError as error:
                problems += [f"search.space: {text} does not work ({problem})" for problem in error.problems]
        if problems:
            raise UserError(list(dict.fromkeys(problems)))

    def _composed(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The training config with these overrides besides those of the command line."""
        composed = resolve.plain(_compose([*self.overrides, *overrides]))
        return {key: value for key, value in composed.items() if key not in OWN_KEYS}

    def _sampler(self, number: int) -> Any:
        options = dict(self.options["sampler"])
        if options.get("seed", 0) is None:  # the same whether a search was cut off or not, and another in each process
            options["seed"] = int(np.random.SeedSequence([self.base["seed"], number]).generate_state(1)[0])
        return targets.instantiate(options, "sampler")

    def run(self) -> None:
        """Run trials until as many as asked for have ended or are running elsewhere.

        Raises:
            UserError: the options of the first trials don't work, whichever were tried.
        """
        num_trials = self.options["num_trials"]
        self._began_s, self._num_ended = time.monotonic(), 0
        failures: list[str] = []
        while (task := self.study.next(self.space, num_trials)) is not None:
            problem = self._run(task)
            failures += [problem] if problem else []
            if len(failures) >= LEAST_TRIALS and not self.study.completed():
                raise UserError([f"no trial has worked yet, of {len(self.study.ended())}:", *dict.fromkeys(failures)])
        if self.study.is_exhausted:
            log.info("the sampler has tried all options: %d trials of %d", len(self.study.ended()), num_trials)

    def _run(self, task: "ClaimedTrial") -> str | None:
        """Run one trial, and note how it ended; what is wrong with its options, or None."""
        value: float | None = None
        try:
            value, problem = self._attempt(task)
            self.study.end(task, value=value, problem=problem)  # before a run is uploaded, which may be interrupted
        finally:
            shutil.rmtree(task.folder / load.CHECKPOINTS, ignore_errors=True)
            equipment.finish_wandb(exit_code=int(value is None))
        gc.collect()
        log.info(
            "trial %d (%d of %d%s): %s; %s",
            task.trial.number,
            len(self.study.ended()),
            self.options["num_trials"],
            self._time_left(),
            f"{self.metric} {value:.4f}" if value is not None else problem or "stopped early",
            " ".join(task.overrides),
        )
        return problem

    def _time_left(self) -> str:
        """About how long the trials will take that are left, where this process runs them all."""
        self._num_ended += 1
        left = self.options["num_trials"] - len(self.study.ended())
        seconds = (time.monotonic() - self._began_s) / self._num_ended * left
        return f", about {format_duration(seconds)} left" if left > 0 else ""

    def _attempt(self, task: "ClaimedTrial") -> tuple[float | None, str | None]:
        """The value of a trial, None where it has none, and what is wrong with its options, or None.

        What ends the process leaves the trial to others, and is raised.
        """
        try:
            return self._value(task), None
        except UserError as error:
            return None, "; ".join(error.problems)
        except Terminated:
            self.study.give_up(task)
            raise
        except (KeyboardInterrupt, SystemExit):
            self.study.give_up(task)
            raise KeyboardInterrupt from None
        except BaseException as error:
            if is_out_of_memory(error):
                return None, "out of memory"
            if (number := terminated_by(error)) is not None or not self.study.is_last_try(task):
                self.study.give_up(task, has_failed=number is None)
                raise
            log.exception("This trial failed by a fault of the program, as it did before:")
            return None, f"{type(error).__name__}: {first_line(str(error))}"

    def _value(self, task: "ClaimedTrial") -> float | None:
        """The best epoch's value of a trial; None where it was stopped early."""
        from lightning.pytorch import seed_everything

        config = self._composed(task.overrides)
        check_train(config, is_multirun=True)
        config["force"] = True  # a run of its own to Weights & Biases, and not that of the same config elsewhere
        seed_everything(config["seed"], verbose=False)
        prune = Prune(task.trial, self.metric)
        job = prepare.prepare(config)
        _check_judged(config, job)
        fit = NetworkFit(config, job, task.folder, is_first=True, callbacks=[prune])
        fit.run()
        if prune.has_pruned:
            return None
        values = [row[self.metric] for row in fit.history if math.isfinite(row.get(self.metric, math.nan))]
        if not values:
            raise UserError(f"{self.metric} is not defined on these validation series")
        return min(values) if BETTER[self.metric] == "min" else max(values)

    def write(self) -> float | None:
        """Write what the search has found so far, and show it."""
        from krontime.search import outcome

        if ended := self.study.ended():
            outcome.write_table(ended, self.folder / outcome.TABLE)
        if not self.study.completed():
            show(f"no trial in {self.folder} has completed yet")
            return None
        best = self.study.study.best_trial
        assert best.value is not None
        outcome.plot(self.study.study, self.folder)
        self._log(best.value)
        words = f"{self.metric} {best.value:.4f}, the best of {len(self.study.ended())} trials"
        experiment_yaml, command = self._write_experiment(best.user_attrs["overrides"], words)
        result(
            folder=self.folder,
            metric=self.metric,
            best=best.value,
            trial=best.number,
            overrides=best.user_attrs["overrides"],
            num_trials=len(self.study.ended()),
        )
        show(
            f"{words}, in trial {best.number}:\n"
            + "".join(f"  {text}\n" for text in best.user_attrs["overrides"])
            + f"\n{experiment_yaml}\n"
            f"Folder  {self.folder}\n"
            f"Next    {command}"
        )
        return best.value

    def _log(self, best: float) -> None:
        """Give Weights & Biases, where it is a logger, a run with all trials."""
        from krontime.runs.wandb_log import log_search, of_wandb
        from krontime.search import outcome

        options = equipment.wandb_options(self.base)
        if options is None:
            return
        named = {"name": f"{self.base['data']['name']}/{self.base['model']['name']}/search", **_given(options)}
        try:
            for logger in of_wandb(
                equipment.loggers({**self.base, "force": True, "logger": {"wandb": named}}, self.folder)
            ):
                plots = [self.folder / name for name in (outcome.HISTORY, outcome.IMPORTANCES)]
                log_search(logger, self.folder / outcome.TABLE, plots, best)
        finally:
            equipment.finish_wandb()

    def _write_experiment(self, overrides: Sequence[str], words: str) -> tuple[str, str]:
        """Write the experiment with a trial's overrides; what the file says, and the command that trains with it."""
        from krontime.search import outcome

        def of_training(config: DictConfig) -> dict[str, Any]:
            return {key: value for key, value in resolve.unresolved(config).items() if key not in (*OWN_KEYS, "hydra")}

        composed = _compose([*self.overrides, *overrides], with_hydra=True)
        config = of_training(composed)
        choices = {
            group: choice
            for group, choice in composed.hydra.runtime.choices.items()
            if group in config and group not in outcome.NOT_OF_AN_EXPERIMENT and choice is not None
        }
        default = of_training(_compose([f"{group}={choice}" for group, choice in choices.items()]))
        return outcome.write_experiment(self.folder / outcome.EXPERIMENT, config, default, choices, words)


class Prune(pl.Callback):
    """Reports the value of each epoch that validates to Optuna, and stops a training that it says is not worth it.

    The callback of `optuna_integration` ends the training by an exception, before the checkpoint of that epoch is
    written; here the epoch ends as any other.

    Args:
        trial: Optuna's.
        metric: validation metric.
    """

    def __init__(self, trial: "Trial", metric: str) -> None:
        self.trial = trial
        self.metric = metric
        self.has_pruned = False
        self._has_validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that this epoch has a value; the check before training gives none."""
        self._has_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report; validation has ended by now."""
        if not self._has_validated:
            return
        self._has_validated = False
        self.trial.report(float(trainer.callback_metrics[self.metric]), trainer.current_epoch)
        if self.trial.should_prune():
            self.has_pruned = trainer.should_stop = True


def _monitor(config: Mapping[str, Any]) -> str | None:
    return ((config.get("callbacks") or {}).get("checkpoint") or {}).get("monitor")


def _yardstick(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a plain config that say on which validation series trials are scored, and by what."""
    data = {key: value for key, value in config["data"].items() if key not in _NO_YARDSTICK}
    data["validation"] = {key: value for key, value in data["validation"].items() if key != "max_train"}
    if not is_cut(data["window"]):
        data = {key: value for key, value in data.items() if key not in ("window", "prepare")}
    return {"data": data, "monitor": _monitor(config), "score": config["score"], "seed": config["seed"]}


def _check_judged(config: Mapping[str, Any], job: prepare.PreparedData) -> None:
    """Refuse a config of which the closed form alone would be fitted, so that no epoch has a score.

    Raises:
        UserError: there are too few validation series to train a network beside the closed form.
    """
    closed, num_validation = build.closed_form(config, job.spec), len(job.split.validation)
    if closed is not None and num_validation < closed.min_network_series:
        raise UserError(
            f"closed_form.min_network_series={closed.min_network_series}: expected at most the {num_validation} "
            "validation series, since no network is trained with fewer (closed_form.min_network_series=0 trains it "
            "beside the closed form, closed_form=none alone)"
        )


def _compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """The config of this command, found where Hydra found it for the running command."""
    from hydra import compose
    from hydra.errors import HydraException

    try:
        return compose("tune", list(overrides), return_hydra_config=with_hydra)
    except HydraException as error:
        raise UserError(str(error.__cause__ or error).splitlines()[0]) from error


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _quiet_optuna() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
