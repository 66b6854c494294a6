"""The records of run folders and archives: read, checked, and published."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from krontime.errors import UserError
from krontime.reports.comparison import archive
from krontime.reports.comparison.recomputed import recomputed
from krontime.runs.predictions import Outcomes, read_outcomes
from krontime.runs.record import Record, Status
from krontime.runs.remarks import REMARKS, Remarks
from krontime.storage import RECORD, is_unfinished, replacing_folder

_ROUNDING = 1e-6  # of an accuracy in float32
_PUBLISHED = (archive.RECORDS, archive.PREDICTIONS, REMARKS)


@dataclass(frozen=True)
class Stored:
    """A record, and where it lies.

    Attributes:
        record: of the run.
        folder: of the run; in an archive, the run's name below the archive's folder.
        archived: what the run said of its test series, from an archive.
    """

    record: Record
    folder: Path
    archived: Outcomes | None = None

    @property
    def job(self) -> str:
        """`DATA/MODEL/seedS-HASH`, as run folders are named."""
        record = self.record
        return f"{record.data}/{record.model}/seed{record.seed}-{record.config_hash}"

    @cached_property
    def outcomes(self) -> Outcomes | None:
        """What the run said of each labelled test series; None where that is not known."""
        return read_outcomes(self.folder) if self.archived is None else self.archived


@dataclass(frozen=True)
class Damaged:
    """A record that cannot be believed.

    Attributes:
        path: of the file that holds it.
        place: the same below the folder that was searched, and the line in an archive.
        problems: what is wrong with it.
    """

    path: Path
    place: str
    problems: tuple[str, ...]


def collect(roots: Iterable[Path]) -> tuple[list[Stored], list[Damaged]]:
    """Every record below `roots`, in run folders and archives, in the order of their paths and each once.

    Returns:
        The runs, and the records that are damaged: one that does not fit its schema or contradicts itself (a config
        that its hash is not of, a protocol that the config does not make) or the test predictions beside it, or whose
        accuracy is no fraction of the test series.

    Raises:
        UserError: a root is no folder, an archive is not readable, or there is no record that is whole.
    """
    roots = list(roots)
    if problems := [f"{root}: expected a folder with run folders in it" for root in roots if not root.is_dir()]:
        raise UserError(problems)
    runs: list[Stored] = []
    damaged: list[Damaged] = []
    for _, item in sorted(_everything(roots).items()):
        if isinstance(item, Damaged):
            damaged.append(item)
        else:
            runs.append(item)
    if not runs:
        raise UserError(
            [f"no whole {RECORD} found: expected at least one run"]
            + [f"{item.path}: {problem}" for item in damaged for problem in item.problems]
        )
    return runs, damaged


def _everything(roots: Iterable[Path]) -> dict[Path, Stored | Damaged]:
    """Every record below some folders, by the path that it has or, in an archive, would have in its run folder."""
    items: dict[Path, Stored | Damaged] = {}
    for root in roots:
        for path in sorted([*root.rglob(RECORD), *root.rglob(archive.RECORDS)]):
            if any(map(is_unfinished, path.relative_to(root).parts)):
                continue  # of a process that was killed while it published
            place, path = path.relative_to(root).as_posix(), path.resolve()
            if path.name == RECORD:
                if path not in items:
                    items[path] = _checked(path, place, partial(_stored, path))
            else:
                items |= {key: item for key, item in _archived(path, place) if key not in items}
    return items


def _archived(path: Path, place: str) -> Iterator[tuple[Path, Stored | Damaged]]:
    """Every record of an archive, by the path that it would have in a run folder."""
    outcomes = archive.read_outcomes(path.parent)
    for line in archive.read_lines(path):
        read = partial(_stored_in_archive, path, line, outcomes.get(line.name))
        yield path.parent / line.name / RECORD, _checked(path, f"{place}, line {line.number}", read)


def _stored(path: Path) -> Stored:
    return Stored(Record.read(path), path.parent)


def _stored_in_archive(path: Path, line: archive.ArchivedText, outcomes: Outcomes | None) -> Stored:
    return Stored(Record.parse(line.record, str(path)), path.parent / line.name, outcomes)


def _checked(path: Path, place: str, read: Callable[[], Stored]) -> Stored | Damaged:
    """A record that is read, or what is wrong with it."""
    try:
        stored = read()
        problems = _contradictions(stored)
    except UserError as error:
        problems = error.problems
    else:
        if not problems:
            return stored
    texts = (text.removeprefix(f"{path}: ").removeprefix("record: ") for text in problems)
    return Damaged(path, place, tuple(texts))


def _contradictions(run: Stored) -> list[str]:
    """Where an accuracy is no fraction of the test series, or a test score not that of the predictions beside it."""
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
    for name, (lowest, highest) in recomputed(outcomes).items():
        score = scores.get(name)  # an area is not defined for a classifier that only names a class
        if score is not None and not lowest <= score <= highest:
            given = f"{(lowest + highest) / 2:.7f}"
            problems.append(f"metrics.test.{name} is {score} but the predictions beside it give {given}")
    return problems


def refuse_contradictions(run: Stored) -> None:
    """Refuse a run whose record and predictions do not fit together, as `collect` leaves it out.

    Raises:
        UserError: with all that does not.
    """
    if problems := _contradictions(run):
        raise UserError(f"{run.folder / RECORD}: {problem}" for problem in problems)


def named(runs: Iterable[Stored], job: str) -> Stored:
    """The completed run of a name, `DATA/MODEL/seedS-HASH`.

    Raises:
        UserError: there is none.
    """
    completed = [run for run in runs if run.record.status is Status.COMPLETED]
    for run in completed:
        if run.job == job:
            return run
    example = completed[0].job if completed else "DATA/MODEL/seedS-HASH"
    raise UserError(f"run={job!r}: expected a completed run of the table, such as {example}")


def newest(job: Sequence[Stored]) -> Stored:
    """The newest completed run of a job; the newest of all where none was completed."""
    return max(job, key=lambda run: (run.record.status is Status.COMPLETED, run.record.started_at))


def publish(runs: Iterable[Stored], folder: Path, remarks: Remarks | None = None) -> None:
    """Make `folder` an archive of these runs and no others, named `DATA/MODEL/seedS-HASH`, each job's newest one.

    A job that was run on several states of its data counts as several, each with the start of the data's checksum in
    its name. Records lose this machine's folders. Beside them goes what each run said of its test series, where that
    is known: the class, and of two classes the probability of the second. The runs may lie in `folder`.

    Args:
        runs: at least one.
        folder: the archive's own; what was published there before does not stay.
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
    archived = []
    for name, job in jobs.items():
        by_data = _by_checksum(job)
        for checksum, alike in by_data.items():
            run = newest(alike)
            full_name = f"{name}-{checksum[:8]}" if len(by_data) > 1 else name
            archived.append(archive.ArchivedRun(full_name, run.record.published(), run.outcomes))
    with replacing_folder(folder) as temporary:
        (remarks or Remarks()).write(temporary)
        archive.write_archive(archived, temporary)


def _by_checksum(job: Iterable[Stored]) -> dict[str, list[Stored]]:
    """Runs of one job by the checksum of their data; one that failed before it had its data goes with the first."""
    by_data: dict[str, list[Stored]] = defaultdict(list)
    without_data = []
    for run in job:
        if run.record.protocol is None:
            without_data.append(run)
        else:
            by_data[run.record.protocol.data_sha256].append(run)
    by_data[next(iter(by_data), "")] += without_data
    return by_data
