"""Suites: named lists of data sets, each of which becomes jobs of one sweep."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from krontime.errors import UserError

KEY = "suite"
"""The config group, which `+suite=NAME` chooses from."""

_NAME = "{name}"


class Suite(BaseModel):
    """A `configs/suite/NAME.yaml`.

    Attributes:
        overrides: what a data set adds to the command line of a job, with `{name}` for its name.
        data_sets: why each is there, by name.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    overrides: Annotated[list[str], Field(min_length=1)]
    data_sets: Annotated[dict[str, str], Field(min_length=1)]

    @field_validator("overrides")
    @classmethod
    def _names_the_data_set(cls, overrides: list[str]) -> list[str]:
        if not any(_NAME in text for text in overrides):
            raise ValueError(f"expected one with {_NAME}, which the data set's name takes the place of")
        return overrides

    @classmethod
    def parse(cls, name: str, content: Any) -> "Suite":
        """The suite of a file's content.

        Raises:
            UserError: names every key that cannot work.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            wrong = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
            raise UserError(
                f"suite/{name}.yaml: {key}: {text.removeprefix('Value error, ')}" for key, text in wrong
            ) from error

    def jobs(self) -> list[list[str]]:
        """The overrides of each data set."""
        return [[text.replace(_NAME, name) for text in self.overrides] for name in self.data_sets]


def with_suites(suites: Mapping[str, Suite], jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Every job on every data set of some suites, the jobs of a data set together.

    Args:
        suites: by name; a data set that two of them have counts once.
        jobs: overrides of each job, without data sets.

    Raises:
        UserError: a job chooses its data itself.
    """
    refused = sorted({text for job in jobs for text in job if text.split("=", 1)[0] in ("data", "data.name")})
    if refused:
        raise UserError(f"{text}: has no effect beside +suite={','.join(suites)}" for text in refused)
    data_sets: dict[tuple[str, ...], None] = {}
    for suite in suites.values():
        data_sets |= dict.fromkeys(map(tuple, suite.jobs()))
    return [[*data_set, *job] for data_set in data_sets for job in jobs]
