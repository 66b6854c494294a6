"""The records of run folders: found, checked, and copied to be published."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from krontime.errors import UserError
from krontime.reports.comparison.recomputed import recomputed
from krontime.runs.predictions import Outcomes, read_outcomes, write_outcomes
from krontime.runs.record import Record, Status
from krontime.runs.remarks import REMARKS, Remarks
from krontime.storage import OUTCOMES, RECORD, is_unfinished, replacing_folder

_ROUNDING = 1e-6  # of an accuracy in float32
_PUBLISHED = (RECORD, OUTCOMES, REMARKS)


@dataclass(frozen=True)
class Stored:
    """A record and the run folder that it lies in."""

    record: Record
    folder: Path

    @property
    def job(self) -> str:
        """`DATA/MODEL/seedS-HASH`, as run folders are named."""
        record = self.record
        return f"{record.data}/{record.model}/seed{record.seed}-{record.config_hash}"

    @cached_property
    def outcomes(self) -> Outcomes | None:
        """What the run said of each labelled test series; None where the folder does not tell."""
        return read_outcomes(self.folder)


@dataclass(frozen=True)
class Damaged:
    """A record that cannot be believed.

    Attributes:
        path: of the record.
        place: the same below the folder that was searched.
        problems: what is wrong with it.
    """

    path: Path
    place: str
    problems: tuple[str, ...]


def collect(roots: Iterable[Path]) -> tuple[list[Stored], list[Damaged]]:
    """Every record below `roots`, in the order of their paths and each file once, and those that are damaged.

    Damaged is a record that does not fit its schema or contradicts itself (a config that its hash is not of, a protocol
    that the config does not make) or the test predictions beside it, or whose accuracy is no share of the test series.

    Raises:
        UserError: a root is no folder, or there is no record that is whole.
    """
    problems: list[str] = []
    places: dict[Path, str] = {}
    for root in roots:
        if not root.is_dir():
            problems.append(f"{root}: expected a folder with run folders in it")
        for path in sorted(root.rglob(RECORD)):
            if any(map(is_unfinished, path.relative_to(root).parts)):
                continue  # of a process that was killed while it published
            places.setdefault(path.resolve(), path.relative_to(root).as_posix())
    if problems:
        raise UserError(problems)
    found: list[Stored] = []
    damaged: list[Damaged] = []
    for path, place in sorted(places.items()):
        try:
            record = Record.read(path)
            stored = Stored(record, path.parent)
            wrong = _contradictions(stored)
        except UserError as error:
            wrong = error.problems
        if wrong:
            said = (text.removeprefix(f"{path}: ").removeprefix("record: ") for text in wrong)
            damaged.append(Damaged(path, place, tuple(said)))
        else:
            found.append(stored)
    if not found:
        raise UserError(
            [f"no whole {RECORD} found: expected at least one run"]
            + [f"{item.path}: {problem}" for item in damaged for problem in item.problems]
        )
    return found, damaged


def _contradictions(run: Stored) -> list[str]:
    """Where an accuracy is no share of the test series, or a test score not that of the predictions beside it."""
    record = run.record
    scores = record.metrics.test
    accuracy = scores.get("accuracy")
    if record.status is not Status.COMPLETED or accuracy is None or record.protocol is None:
        return []
    problems = []
    num_test = record.protocol.num_test
    if num_test and abs(round(accuracy * num_test) / num_test - accuracy) > _ROUNDING:
        problems.append(f"metrics.test.accuracy is {accuracy}, which no number of {num_test:,} test series gives")
    if (outcomes := run.outcomes) is None:
        return problems
    if len(outcomes.index) != num_test:
        problems.append(f"protocol.num_test is {num_test} but the predictions beside it are {len(outcomes.index)}")
    for name, (least, most) in recomputed(outcomes).items():
        score = scores.get(name)  # an area is not defined for a classifier that only names a class
        if score is not None and not least <= score <= most:
            given = f"{(least + most) / 2:.7f}"
            problems.append(f"metrics.test.{name} is {score} but the predictions beside it give {given}")
    return problems


def newest(job: Sequence[Stored]) -> Stored:
    """The newest completed run of a job; the newest of all where none was completed."""
    return max(job, key=lambda run: (run.record.status is Status.COMPLETED, run.record.started_at))


def publish(runs: Iterable[Stored], folder: Path, remarks: Remarks | None = None) -> None:
    """Make `folder` hold the records of these runs and no others, in `DATA/MODEL/seedS-HASH`, each job's newest one.

    A job that was run on several states of its data counts as several, each with the start of the data's checksum in
    its folder's name. Records lose this machine's folders. Beside a record goes what it said of each test series, where
    that is known: the class, and of two classes the probability of the second. The runs may lie in `folder`.

    Args:
        runs: at least one.
        folder: the records' own; what was published there before does not stay.
        remarks: to be kept in `folder`.

    Raises:
        UserError: something lies there that was not published.
    """
    strange = [path for path in folder.rglob("*") if path.is_file() and path.name not in _PUBLISHED]
    if strange:
        raise UserError(
            f"{folder}: holds {strange[0].relative_to(folder)}, which is not of published records and would be lost; "
            "expected another output=FOLDER"
        )
    jobs: dict[str, list[Stored]] = defaultdict(list)
    for run in runs:
        jobs[run.job].append(run)
    with replacing_folder(folder) as temporary:
        (remarks or Remarks()).write(temporary)
        for name, job in jobs.items():
            by_data = _by_checksum(job)
            for checksum, alike in by_data.items():
                run = newest(alike)
                outcomes = run.outcomes
                target = temporary / (f"{name}-{checksum[:8]}" if len(by_data) > 1 else name)
                run.record.published().write(target / RECORD)
                if outcomes is not None:
                    write_outcomes(outcomes, target)


def _by_checksum(job: Iterable[Stored]) -> dict[str, list[Stored]]:
    """Runs of one job by the checksum of their data; one that failed before it had its data goes with the first."""
    found: dict[str, list[Stored]] = defaultdict(list)
    lost = []
    for run in job:
        if run.record.protocol is None:
            lost.append(run)
        else:
            found[run.record.protocol.data_sha256].append(run)
    found[next(iter(found), "")] += lost
    return found
