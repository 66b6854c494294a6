"""What Hydra calls for each job. A launcher that pickles it needs no more than this module in the other process."""

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from omegaconf import DictConfig

from krontime import console
from krontime.commands import COMMANDS
from krontime.config.resolve import register_resolvers, unresolved
from krontime.config.shape import shape_problems
from krontime.errors import UserError

log = logging.getLogger(__name__)

register_resolvers()


class Task:
    """One command, to be run on a config.

    Args:
        command: name of the command.
        command_line: arguments of the process, which Lightning starts further ranks with.

    Attributes:
        begun: whether a job was begun in this process; what fails before is the config.
    """

    def __init__(self, command: str, command_line: Sequence[str]) -> None:
        self.command = command
        self.command_line = list(command_line)
        self.begun = False

    def __call__(self, config: DictConfig) -> Any:
        """Run the command; a mistake of the user's ends the process unless other jobs are to follow."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from krontime.runs.signals import is_first_rank

        self.begun = True
        sys.argv = self.command_line
        try:
            if console.is_quiet():
                logging.getLogger().setLevel(logging.WARNING)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                console.sweep_notice(int(HydraConfig.get().job.num))
            if problems := shape_problems(self.command, unresolved(config)):
                raise UserError(problems)
            with console.signs_of_life(self.command) if is_first_rank() else nullcontext():
                returned = function(self.command)(config)
            if HydraConfig.get().mode == RunMode.RUN and returned is not None and not console.has_result():
                console.result(result=returned)
            return returned
        except UserError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # Hydra says which job it was, and runs the others
            console.fail(error.problems)
        except Exception as error:
            from krontime.runs.failures import storage_problem

            if HydraConfig.get().mode == RunMode.MULTIRUN:  # other jobs may follow, or this is another process
                log.exception("This job failed by a fault of the program:")
            elif (problem := storage_problem(error)) is not None:
                console.fail([problem])
            raise


def function(command: str) -> Callable[[DictConfig], Any]:
    """The function of a command; what it needs is imported now."""
    module, name = COMMANDS[command][0].split(":")
    return getattr(importlib.import_module(module), name)
