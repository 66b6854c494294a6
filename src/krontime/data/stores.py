"""Files of an object store or a server, copied here by fsspec: each once, resumed where it broke off, and checked.

Beside the data lies `SHA256SUMS`, as `sha256sum FILE... > SHA256SUMS` writes it: what is listed there can be had, and
has to arrive so. A store is transport alone: whatever reads data reads the copies.
"""

import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from krontime.console import progress
from krontime.data.sources.download import ATTEMPTS, CHUNK_BYTES, PAUSE_S, TIMEOUT_S
from krontime.storage import is_address, replacing

log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


class _BrokenError(Exception):
    """A store did not answer, or not to the end, or sent something else."""


def local_copies(arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Replace each address among arguments by the path of a copy below `folder`, see `local_copy`.

    Raises:
        ValueError: names each argument whose files can't be had.
        OSError: a copy can't be written.
    """
    copied, problems = dict(arguments), []
    for name, value in arguments.items():
        if is_address(value):
            try:
                copied[name] = str(local_copy(value, folder))
            except ValueError as error:
                problems.append(f"{name}={value!r}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return copied


def local_copy(address: str, folder: Path) -> Path:
    """Return the copy of a file, or of a folder with all files that its list names, after fetching what is not there.

    Processes that ask at the same time share one copy. A file is fetched again where the store lists another checksum
    than it had; where the store does not answer, the copies that are there are used.

    Args:
        address: of the file or the folder.
        folder: of all copies, made if absent.

    Raises:
        ValueError: there is no such kind of store, it needs a package, nothing is there, or it does not arrive whole.
        OSError: a copy can't be written.
    """
    from filelock import FileLock

    address = address.rstrip("/")
    if not is_address(f"{address}/"):
        raise ValueError("expected the address of a file or a folder")
    if "::" in address:  # some file systems of fsspec are built from what another one holds
        raise ValueError("expected one address, without :: and another one in it")
    parent, _, name = address.rpartition("/")
    name = unquote(name) if _is_http(address) else name
    ways: list[tuple[str, str | None]] = [(address, None)]
    if not parent.endswith(":/"):  # else it is all of a server or a bucket
        ways.insert(0 if PurePosixPath(name).suffix else 1, (parent, name))
    folder.mkdir(parents=True, exist_ok=True)
    for place, wanted in ways:
        copy = folder / hashlib.sha256(place.encode()).hexdigest()[:16]
        with FileLock(folder / f"{copy.name}.lock"):
            try:
                sums = _sums(place, copy)
                if wanted is not None and wanted not in sums:
                    continue
                for file in sums if wanted is None else [wanted]:
                    if not (copy / file).is_file():
                        _fetch(f"{place}/{quote(file) if _is_http(place) else file}", copy / file, sums[file])
            except _BrokenError as error:
                raise ValueError(f"{error}; the same command tries again, and resumes what arrived in part") from error
        if sums:
            return copy if wanted is None else copy / wanted
    raise ValueError(
        f"nothing there is listed with its checksum; expected a line for {name} in {parent}/{SUMS}, as "
        f"sha256sum {name} > {SUMS} writes it, or {address}/{SUMS} with a line for each file of a folder"
    )


def _is_http(address: str) -> bool:
    """Say whether names in an address are percent-encoded."""
    return address.startswith(("http://", "https://"))


def _sums(place: str, copy: Path) -> dict[str, str]:
    """Return the checksum of each file that a store's folder lists, and delete copies that had another one.

    Args:
        place: address of the folder.
        copy: folder of the copies, which keeps the list.

    Returns:
        By name relative to the folder; nothing where there is no list, or it may not be read.
    """
    kept = copy / SUMS
    before = _parsed(kept.read_bytes(), place) if kept.is_file() else {}
    try:
        text = _list_of(place)
    except _BrokenError as error:
        if not before:
            raise
        log.warning("%s; the copies in %s are used", error, copy)
        return before
    sums = _parsed(text, place)
    if not sums:
        return {}
    for name, sha256 in before.items():
        if sums.get(name) != sha256:
            (copy / name).unlink(missing_ok=True)
    with replacing(kept) as temporary:
        temporary.write_bytes(text)
    return sums


def _parsed(text: bytes, place: str) -> dict[str, str]:
    """Parse what `sha256sum` writes."""
    sums = {}
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{place}/{SUMS}, line {number}: expected a checksum and a name, as sha256sum writes them")
        name = PurePosixPath(match[2])
        if name.is_absolute() or ".." in name.parts or any(mark in match[2] for mark in ("\\", "::")):
            raise ValueError(f"{place}/{SUMS}, line {number}: expected a name below that folder, not {match[2]!r}")
        sums[str(name)] = match[1]
    return sums


def _fetch(address: str, path: Path, sha256: str) -> None:
    """Copy a file to `path`, which appears when it is whole; until then `path` with `.part` grows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    failure = _BrokenError("no attempt was made")
    for attempt in range(ATTEMPTS):
        if attempt:
            log.warning("%s; trying again", failure)
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        have = part.stat().st_size if part.exists() else 0
        try:
            with open(part, "ab") as file, progress(f"bytes of {path.name}", None) as step:
                for chunk in _chunks(address, have):
                    file.write(chunk)
                    step(len(chunk))
        except _BrokenError as error:
            failure = error
            if isinstance(error.__cause__, ValueError):  # the store can't begin in the middle
                part.unlink()
            continue
        with open(part, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                part.replace(path)
                return
        part.unlink()
        failure = _BrokenError(f"{address} arrived damaged: it is not what {SUMS} lists")
    raise failure


def _list_of(place: str) -> bytes:
    """Read the list of a store's folder; empty where there is none, or it may not be read."""
    address = f"{place}/{SUMS}"
    with _explained(address):
        store, path = _store_of(address)
        try:
            text: bytes = store.cat_file(path)
        except (FileNotFoundError, PermissionError):
            return b""
        return text


def _chunks(address: str, start: int) -> Iterator[bytes]:
    """Read a file of a store from a byte on."""
    with _explained(address):
        store, path = _store_of(address)
        # A server that sends a file in one go need not be able to begin in the middle.
        options = {"block_size": 0} if "http" in store.protocol and not start else {}
        with store.open(path, "rb", **options) as file:
            if start:
                file.seek(start)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def _store_of(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in it."""
    import fsspec

    options = {}
    if _is_http(address):
        import aiohttp

        # A file may take longer than the five minutes that aiohttp gives it, as long as bytes arrive.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
        configured = fsspec.config.conf.get(address.partition(":")[0], {}).get("client_kwargs", {})
        options = {"client_kwargs": {"timeout": timeout, **configured}}
    store, path = fsspec.core.url_to_fs(address, **options)
    return store, path


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn what the library of a store raises into a `_BrokenError`, or a `ValueError` where no attempt can help."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{error}; expected pip install of that package first") from error
    except Exception as error:  # each library has errors of its own
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            raise ValueError("no such kind of store; expected s3://, gs://, https:// or another of fsspec") from error
        raise _BrokenError(f"{address} can't be read ({type(error).__name__}: {error})") from error
