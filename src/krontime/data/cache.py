"""Parsed data sets on disk: read once, then opened as memory maps, checked against their checksums.

One data set is one folder: a `.npy` file per array and `meta.json`, built under a temporary name and renamed when
whole, so that a folder with the final name is complete. Its name is a hash of what was read (paths, sizes, modification
times, options) and of how it is stored: changed input is parsed anew.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from krontime.data.assemble import also_trained_on, checked, class_problems, series_digests
from krontime.data.copies import refuse_copies
from krontime.data.prepare import Prepare
from krontime.data.recordings import Stored, Streams, store
from krontime.data.series import SeriesData, chunks
from krontime.errors import UserError

log = logging.getLogger(__name__)

FORMAT_VERSION = 7
"""Part of every folder's name: raise it when the arrays, or what sources make of a file, change."""

ARRAYS = {
    "values": np.float32,
    "offsets": np.int64,
    "labels": np.int64,
    "is_test": np.bool_,
    "groups": np.int64,
    "is_validation": np.bool_,
    "given_lengths": np.int64,
    "annotations": np.int64,
    "scale": np.float64,
    "digests": np.uint64,
}

PLAIN = ("num_channels", "has_missing", "group_name", "sampling_rate_hz", "header")
TEXTS = ("class_names", "group_names", "notes")
LATER_PLAIN, LATER_TEXTS = ("missing_code", "by_time"), ("recording_names",)
"""Those that folders of earlier versions don't have."""

NOT_CONTENT = ("given_lengths", "digests")


class Source(Protocol):
    """What a data source offers, whatever it reads."""

    def describe(self) -> dict[str, Any]:
        """Identity of what `load` would read, as JSON values; raises `UserError` where files are missing."""

    def load(self) -> SeriesData:
        """Read everything into memory; raises `UserError` with all problems of the files."""


@runtime_checkable
class LargeSource(Source, Protocol):
    """A source whose values need not fit in memory; its files may have different sampling rates."""

    def load_into(self, scratch: Path, *, mixed_rates: bool) -> SeriesData:
        """As `load`, with the values as a memory map of a `.npy` file.

        Args:
            scratch: folder for the file.
            mixed_rates: whether the rates may differ, and are then in `rates_hz`: the caller resamples.
        """


@runtime_checkable
class ChoosesTest(Protocol):
    """A source that chooses its test series after parsing, so that every choice shares what was parsed."""

    def load_unchosen(self) -> SeriesData:
        """As `load`, before the choice."""

    def test_series(self, data: SeriesData) -> np.ndarray | None:
        """Bool `(n,)`, which series are tested on; None for those that `load` said. Raises `UserError`."""


class _DamagedError(Exception):
    """The folder is there but cannot be trusted."""


def load_cached(source: Source | Streams, prepare: Prepare, cache_dir: str | Path) -> SeriesData:
    """Open the data set's memory maps, after parsing it if that was not done before.

    Processes that ask at the same time share one parse; what need not fit in memory is stored as it is read. Opening
    reads the labels and offsets but no values, however large they are; sizes and modification times are compared with
    those noted, and the arrays are hashed only if these differ. A damaged folder is reported as a warning and built
    again.

    Args:
        source: where the series come from.
        prepare: resampling and cropping applied to each series before it is stored.
        cache_dir: folder of all cached data sets, made if absent.

    Returns:
        The data set with read-only memory-mapped values and its content checksum in `sha256`.

    Raises:
        UserError: the source's files are missing or wrong, or the cache cannot be written.
    """
    folder, identity = place_of(source, prepare, cache_dir)
    kind, cache_dir = _kind(identity), folder.parent
    with cache_errors(cache_dir), contextlib.suppress(FileNotFoundError, _DamagedError):
        return _chosen(source, *_open(folder, refresh=False))

    from filelock import FileLock

    with cache_errors(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_dir / f"{folder.name}.lock")
        lock.acquire()
    try:
        try:
            return _chosen(source, *_open(folder, refresh=True))
        except FileNotFoundError:
            pass
        except _DamagedError as error:
            log.warning("The cached data set %s is damaged (%s) and is built again.", folder, error)
        log.info("Parsing %s into %s", kind, folder)
        if isinstance(source, Streams | LargeSource):
            with cache_errors(cache_dir), _building(folder) as building:
                stored = _stored(source, building, prepare, kind)
                _write(building, replace(stored.data, digests=stored.digests), identity)
        else:
            data = checked(prepare.apply(_loaded(source)), kind)
            with cache_errors(cache_dir), _building(folder) as building:
                _write(building, replace(data, digests=series_digests(data)), identity)
        with cache_errors(cache_dir):
            opened = _open(folder, refresh=False)
    finally:
        lock.release()
    return _chosen(source, *opened)


def place_of(source: Source | Streams, prepare: Prepare, cache_dir: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder that a data set is cached in, and the identity that its name is a hash of; see `load_cached`.

    Raises:
        UserError: the source's files are missing.
    """
    identity: dict[str, Any] = {"source": source.describe(), "prepare": prepare.describe(), "format": FORMAT_VERSION}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]
    return Path(cache_dir) / f"{_kind(identity)}-{key}", identity


def _kind(identity: dict[str, Any]) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", str(identity["source"].get("name", "data")))[:40]


def _loaded(source: Source) -> SeriesData:
    return source.load_unchosen() if isinstance(source, ChoosesTest) else source.load()


def _stored(source: Streams | LargeSource, building: Path, prepare: Prepare, kind: str) -> Stored:
    """What a source reads, its values in `values.npy`, written as it was read."""
    scratch, path = building / "scratch", building / "values.npy"
    scratch.mkdir()
    try:
        if isinstance(source, Streams):
            stored = store(source.stream(scratch), path, prepare, where=kind, group_name=source.group_name)
            return stored._replace(data=replace(stored.data, by_time=source.by_time))
        data = source.load_into(scratch, mixed_rates=prepare.resample_hz is not None)
        data = checked(prepare.apply(data, scratch), kind)
        assert isinstance(data.values, np.memmap)
        assert data.values.filename is not None
        os.replace(data.values.filename, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        return Stored(data, series_digests(data))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _chosen(source: Source | Streams, data: SeriesData, meta: dict[str, Any]) -> SeriesData:
    """The opened data set with the test series that its source chooses, and a warning where some were trained on.

    Raises:
        UserError: a class is not trained on, of series; those of windows are known once they are cut.
    """
    name = meta["identity"]["source"].get("name", "data")
    if isinstance(source, ChoosesTest | Streams) and (is_test := source.test_series(data)) is not None:
        meta["arrays"]["is_test"]["sha256"] = _sha256(is_test)
        data = replace(data, is_test=is_test, sha256=_content_sha256(meta))
    if data.annotations is None and (problems := class_problems(data)):
        raise UserError(f"{name}: {problem}" for problem in problems)
    look_for_copies(data, name)
    return data


def look_for_copies(data: SeriesData, name: str) -> None:
    """Warn of test series that are trained on.

    Args:
        data: series or recordings, with their digests.
        name: of the data set, and of the split where it is not the official one.

    Raises:
        UserError: much of test recordings is trained on.
    """
    if data.annotations is not None:
        assert data.digests is not None
        refuse_copies(data, data.digests)
    elif (shared := also_trained_on(data)).size:
        log.warning(
            "%s: %d of %d test series stand in the training split too, and the test score says less (series %s)",
            *(name, len(shared), data.is_test.sum()),
            ", ".join(map(str, shared[:5])),
        )


@contextlib.contextmanager
def cache_errors(cache_dir: Path) -> Iterator[None]:
    """Say what to do where the cache folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"paths.cache={str(cache_dir)!r}: the data cache cannot be written ({error.strerror or error}); "
            "expected a writable folder with room (paths.cache=FOLDER or the environment variable KRONTIME_CACHE)"
        ) from error


@contextlib.contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """Yield a folder that becomes `folder` when the block ends well; the caller holds the lock."""
    for stale in folder.parent.glob(f".{folder.name}-*"):  # left by a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    building = folder.with_name(f".{folder.name}-{os.getpid()}")
    building.mkdir()  # unlike tempfile's, readable to whom the user's umask allows
    try:
        yield building
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(building: Path, data: SeriesData, identity: dict[str, Any]) -> None:
    """Write what a data set consists of, but values that were written while they were read; `meta.json` last.

    Args:
        building: folder.
        data: the data set, with its digests.
        identity: of what was read.
    """
    arrays = {}
    for name, dtype in ARRAYS.items():
        if (field := getattr(data, name)) is None:
            continue
        path, array = building / f"{name}.npy", field
        if not path.exists():
            array = np.ascontiguousarray(field, dtype=dtype)
            with open(path, "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        arrays[name] = {
            "sha256": _sha256(array),
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            **_stat(path),
        }
    plain = {name: getattr(data, name) for name in (*PLAIN, *TEXTS, *LATER_PLAIN, *LATER_TEXTS)}
    meta = {"identity": identity, "arrays": arrays, **plain}
    _write_meta(building, {**meta, "sha256": _content_sha256(meta)})


def _open(folder: Path, *, refresh: bool) -> tuple[SeriesData, dict[str, Any]]:
    """Memory-map the folder's arrays; with the data set comes what `meta.json` holds.

    Args:
        folder: the cached data set.
        refresh: hash arrays whose size or modification time changed, and note the new ones where the content is
            whole (the caller holds the lock).

    Raises:
        FileNotFoundError: there is no such folder.
        _DamagedError: anything in it is not as it was written.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["sha256"] != _content_sha256(meta):
            raise _DamagedError("meta.json does not match its checksum")
        arrays = {}
        moved = False
        for name, noted in meta["arrays"].items():
            path = folder / f"{name}.npy"
            array = np.load(path, mmap_mode="r" if name == "values" else None, allow_pickle=False)
            if array.dtype.str != noted["dtype"] or list(array.shape) != noted["shape"]:
                raise _DamagedError(f"{path.name} has another type or shape than was written")
            state = _stat(path)
            if state != {key: noted[key] for key in state}:
                if not refresh:
                    raise _DamagedError(f"{path.name} was touched")
                if _sha256(array) != noted["sha256"]:
                    raise _DamagedError(f"{path.name} does not match its checksum")
                moved = True
            noted.update(state)
            arrays[name] = array
        plain = {name: meta[name] for name in PLAIN}
        plain |= {name: meta.get(name) for name in LATER_PLAIN}
        texts = {**{name: meta[name] for name in TEXTS}, **{name: meta.get(name) for name in LATER_TEXTS}}
        plain |= {name: None if text is None else tuple(text) for name, text in texts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise _DamagedError(f"{type(error).__name__}: {error}") from error
    if moved:
        with contextlib.suppress(OSError):  # a read-only cache is hashed at each opening
            _write_meta(folder, meta)
    return SeriesData(**arrays, **plain, sha256=meta["sha256"]), meta


def _write_meta(folder: Path, meta: dict[str, Any]) -> None:
    temporary = folder / "meta.json.tmp"
    with open(temporary, "w") as file:
        json.dump(meta, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / "meta.json")


def _stat(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _sha256(array: np.ndarray) -> str:
    digest = hashlib.sha256()
    for chunk in chunks(array):
        digest.update(np.ascontiguousarray(chunk).data)
    return digest.hexdigest()


def with_checksum(data: SeriesData) -> SeriesData:
    """The same data with what its cached copy has too: the checksum of its content, and the digests of its series."""
    arrays = {
        name: {"sha256": _sha256(np.ascontiguousarray(array, dtype=dtype))}
        for name, dtype in ARRAYS.items()
        if (array := getattr(data, name)) is not None
    }
    named = {name: getattr(data, name) for name in PLAIN} | {"class_names": list(data.class_names)}
    return replace(data, digests=series_digests(data), sha256=_content_sha256({"arrays": arrays, **named}))


def _content_sha256(meta: dict[str, Any]) -> str:
    """Checksum of the data set's content: the same wherever and from whichever file it was made."""
    content = {name: noted["sha256"] for name, noted in meta["arrays"].items() if name not in NOT_CONTENT}
    content |= {name: meta[name] for name in ("class_names", "num_channels", "sampling_rate_hz")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
