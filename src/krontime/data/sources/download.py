"""Files from a server: whole and checked, or a part that the next attempt resumes from.

(pooch checks hashes and renames too, but starts over after each break, and an archive's larger files take minutes.)
"""

import hashlib
import logging
import shutil
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

log = logging.getLogger(__name__)

TIMEOUT_S = 60
"""Longest wait for the next bytes."""

ATTEMPTS = 4
PAUSE_S = 1.0
"""Before the second attempt; twice as long before each further one."""

CHUNK_BYTES = 1 << 20
MAX_TEXT_BYTES = 1 << 24


def read_text(url: str) -> bytes:
    """A short answer; raises `OSError` or `HTTPException` where there is none, or it is not short."""
    with _open(urllib.request.Request(url)) as response:
        text = response.read(MAX_TEXT_BYTES + 1)
    if len(text) > MAX_TEXT_BYTES:
        raise OSError(f"the answer has over {MAX_TEXT_BYTES:,} bytes")
    return text


def fetch(url: str, path: Path, *, size: int, md5: str) -> None:
    """Download a file to `path`, which appears when it is whole; until then `path` with `.part` grows.

    A connection that breaks or stalls is tried again from where it broke, also by a later process.

    Args:
        url: of the file.
        path: where it goes; its folder is there.
        size: of the whole file in bytes.
        md5: its checksum in hex digits.

    Raises:
        OSError, HTTPException: the last attempt failed; what has arrived is kept unless it is wrong.
    """
    part = path.with_name(f"{path.name}.part")
    have = part.stat().st_size if part.exists() else 0
    if size - have > (free := shutil.disk_usage(path.parent).free):
        raise OSError(f"{path.name} takes {size:,} bytes, and {free:,} are free in {path.parent}")
    failure: OSError | HTTPException = OSError("no attempt was made")
    for attempt in range(ATTEMPTS):
        if attempt:
            log.warning("%s: %s; trying again", path.name, failure)
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        try:
            _append(url, part, size)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise
            if error.code == 416:  # the part is longer than the file there
                part.unlink(missing_ok=True)
            failure = OSError(f"the server answers {error.code} {error.reason}")
            continue
        except (OSError, HTTPException) as error:
            failure = error
            continue
        have = part.stat().st_size
        if have < size:
            failure = OSError(f"the connection ended after {have:,} of {size:,} bytes")
        elif have > size or _md5(part) != md5:
            part.unlink()
            failure = OSError(f"{path.name} arrived damaged: it is not the {size:,} bytes that the record states")
        else:
            part.replace(path)
            return
    raise failure


def _append(url: str, part: Path, size: int) -> None:
    """Add to a part what is missing of it, at most one byte more than `size`."""
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with _open(request) as response:
        is_rest = response.status == 206
        if is_rest and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise OSError("the server answers with another part of the file than was asked for")
        with open(part, "ab" if is_rest else "wb") as file:
            left = size + 1 - file.tell()
            while left > 0 and (chunk := response.read1(min(CHUNK_BYTES, left))):  # `read` would drop a broken chunk
                file.write(chunk)
                left -= len(chunk)


def _open(request: urllib.request.Request):
    """Like urllib's, with the connection of an error answer closed."""
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
