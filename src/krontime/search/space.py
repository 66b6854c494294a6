"""What a search may change: overrides of the command line, each with its choices or its range."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from krontime.errors import UserError

if TYPE_CHECKING:
    from optuna import Trial

Scalar = str | int | float | bool | None


class Space:
    """Override names, each with what it may be set to.

    Args:
        options: choices as a list, or a range as `{low, high}` with `step` or `log`; whole numbers where both ends are.

    Raises:
        UserError: names every entry that cannot work.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        problems = [
            f"search.space.{key}={value!r}: expected {e}" for key, value in options.items() if (e := _wrong(value))
        ]
        if not options:
            problems = [
                "search.space={}: expected at least one override and its choices or range, such as "
                "'+search.space={optim.optimizer.lr: {low: 0.0001, high: 0.01, log: true}}'"
            ]
        if problems:
            raise UserError(problems)

    def suggest(self, trial: "Trial") -> list[str]:
        """The overrides of one trial."""
        return [override(key, self._suggest(trial, key, value)) for key, value in self.options.items()]

    def ends(self) -> list[tuple[str, str]]:
        """`(key, override)` for each choice and each end of a range."""
        reached = []
        for key, value in self.options.items():
            values = value if isinstance(value, list) else [value["low"], value["high"]]
            reached += [(key, override(key, each)) for each in values]
        return reached

    def _suggest(self, trial: "Trial", key: str, value: Any) -> Any:
        if isinstance(value, list):
            if all(isinstance(choice, Scalar) for choice in value):
                return trial.suggest_categorical(key, value)
            texts = [json.dumps(choice) for choice in value]  # Optuna stores no lists
            return json.loads(trial.suggest_categorical(key, texts))
        low, high, step, log = value["low"], value["high"], value.get("step"), value.get("log", False)
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(key, low, high, step=step or 1, log=log)
        return trial.suggest_float(key, low, high, step=step, log=log)


def override(key: str, value: Any) -> str:
    """`key=value` as Hydra reads it."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}={value}" if value.replace("_", "").isalnum() else f"{key}='{escaped}'"
    return f"{key}={json.dumps(value)}"


def _wrong(value: Any) -> str | None:
    """What would be right instead of an entry of the space; None where it is right."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        distinct = {json.dumps(choice, sort_keys=True) for choice in value}
        if any(isinstance(choice, Mapping) for choice in value) or not value or len(distinct) < len(value):
            return "different values or lists of values"
        return None
    if not isinstance(value, Mapping) or not {"low", "high"} <= set(value) <= {"low", "high", "step", "log"}:
        return "a list of choices, or {low: NUMBER, high: NUMBER} with step or log"
    low, high, step, log = value["low"], value["high"], value.get("step"), value.get("log", False)
    numbers = [low, high, *([] if step is None else [step])]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        return "numbers"
    if not isinstance(log, bool):
        return "log to be true or false"
    if low >= high:
        return "low to be less than high"
    if step is not None and (step <= 0 or log):
        return "step to be above 0, and without log"
    if isinstance(low, int) and isinstance(high, int) and not isinstance(step, int | None):
        return "a whole number as step between whole numbers"
    if log and low <= 0:
        return "low to be above 0 with log"
    return None
