"""Archive data sets: offline where the package has them, downloaded whole or not at all."""

import hashlib
import json
import multiprocessing
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from krontime.data.sources import download
from krontime.data.sources.ucr import UcrSource

NAME = "Adiac"
HEADER = b"@univariate true\n@equalLength true\n@classLabel true a b\n@data\n"
FILES = {
    f"{NAME}_TRAIN.ts": HEADER + b"1,2,3:a\n4,5,6:b\n" * 400,
    f"{NAME}_TEST.ts": HEADER + b"1,2,9:a\n",
    f"{NAME}_eq_TRAIN.ts": b"not wanted",
}
TRAIN = f"{NAME}_TRAIN.ts"


class Archive(ThreadingHTTPServer):
    """A stand-in for the archive's server, on this machine, which can be told to misbehave, for ever or some times."""

    daemon_threads = False  # closing the server waits for its answers

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.harm: str | None = None
        self.times = 10**6
        self.requests: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def record(self) -> bytes:
        change = {"wrong size": 1, "endless size": 2**60}.get(self.harm or "", 0)
        files = [
            {
                "key": name,
                "size": "many" if self.harm == "size in words" else len(content) + change,
                "checksum": "md5:" + hashlib.md5(b"x" if self.harm == "wrong checksum" else content).hexdigest(),
                "links": {"self": self.links().format(name=name)},
            }
            for name, content in FILES.items()
            if not (self.harm == "no test file" and "TEST" in name)
        ]
        return json.dumps({"files": files}).encode()

    def links(self) -> str:
        other = {"local file": "file:///etc/hostname", "other place": "http://127.0.0.1:9/{name}"}
        return other.get(self.harm or "", self.url + "/files/{name}")

    def misbehaves(self) -> bool:
        self.times -= 1
        return self.times >= 0


class Handler(BaseHTTPRequestHandler):
    server: Archive

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        asked = self.headers.get("Range")
        self.server.requests.append((name, asked))
        harm = self.server.harm
        if name not in FILES:
            self.answer({"not JSON": b"<html>sign in</html>", "long record": b" " * (1 << 25)}.get(harm or ""))
            return
        content = FILES[name]
        if harm in ("gone", "busy", "no range") and self.server.misbehaves():
            self.send_error({"gone": 404, "busy": 503, "no range": 416}[harm])
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and harm != "ignores ranges" else 0
        rest = content[start:]
        if harm == "other content":
            rest = b"@data" + b"?" * (len(content) - 5)
        if harm == "endless":
            rest = content * 50
        stated = len(rest) * 3 if harm == "lies about length" else len(rest)
        self.send_response(206 if start else 200)
        if start:
            at = 0 if harm == "other range" else start
            self.send_header("Content-Range", f"bytes {at}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(stated))
        self.end_headers()
        broken = harm in ("cut short", "stalls", "resets", "ignores ranges", "other range")
        if not (broken and name == TRAIN and self.server.misbehaves()):
            self.wfile.write(rest)
            return
        self.wfile.write(rest[: len(rest) // 2])
        self.wfile.flush()
        if harm == "stalls":
            self.server.closing.wait(20)
        if harm == "resets":
            self.server.closing.wait(0.2)  # else what was sent is lost too
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def answer(self, content: bytes | None) -> None:
        content = self.server.record() if content is None else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def archive(monkeypatch) -> Iterator[Archive]:
    with Archive() as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("KRONTIME_ZENODO", server.url + "/records")
        monkeypatch.setattr(download, "TIMEOUT_S", 5)
        monkeypatch.setattr(download, "PAUSE_S", 0.01)
        yield server
        server.closing.set()
        server.shutdown()


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.suffix != ".lock"] if folder.exists() else []


def test_bundled_data_needs_no_download_and_no_folder(tmp_path, archive):
    source = UcrSource("ACSF1", str(tmp_path / "ucr"))
    data = source.load()
    assert (len(data), data.spec.length, data.spec.num_classes) == (200, 1460, 10)
    assert data.is_test.sum() == 100
    assert np.bincount(data.labels).tolist() == [20] * 10
    assert source.describe()["name"] == "ACSF1"
    assert not (tmp_path / "ucr").exists()
    assert archive.requests == []


def test_bundled_data_of_unequal_length_and_many_channels(tmp_path):
    unequal = UcrSource("PickupGestureWiimoteZ", str(tmp_path)).load()
    assert not unequal.equal_length
    many = UcrSource("JapaneseVowels", str(tmp_path)).load()
    assert many.num_channels == 12
    assert not many.equal_length


def test_a_download_is_kept_and_used_again(tmp_path, archive):
    source = UcrSource(NAME, str(tmp_path / "ucr"))
    source.describe()
    data = source.load()
    assert data.series(800).tolist() == [[1, 2, 9]]
    assert sorted(p.name for p in leftovers(tmp_path / "ucr")) == [NAME, f"{NAME}_TEST.ts", f"{NAME}_TRAIN.ts"]
    asked = list(archive.requests)
    UcrSource(NAME, str(tmp_path / "ucr")).describe()
    assert archive.requests == asked


WRONG = (
    *("endless size", "size in words", "wrong checksum", "no test file", "not JSON", "long record"),
    *("gone", "local file", "other place", "other content", "endless"),
)


@pytest.mark.parametrize("harm", WRONG)
def test_a_wrong_download_leaves_nothing_and_says_what_to_do(tmp_path, archive, harm):
    archive.harm = harm
    with pytest.raises(ValueError, match=rf"could not be downloaded.*{NAME}_TRAIN\.ts.*by hand") as caught:
        UcrSource(NAME, str(tmp_path / "ucr")).describe()
    assert len(str(caught.value).splitlines()) == 1
    assert leftovers(tmp_path / "ucr") == []
    archive.harm = None
    assert len(UcrSource(NAME, str(tmp_path / "ucr")).load()) == 801


@pytest.mark.parametrize(
    "harm", ["cut short", "stalls", "resets", "ignores ranges", "other range", "busy", "lies about length"]
)
def test_a_connection_that_breaks_is_taken_up_again(tmp_path, archive, monkeypatch, harm):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.5)
    archive.harm, archive.times = harm, 1
    if harm == "other range":
        archive.times = 2
    assert len(UcrSource(NAME, str(tmp_path / "ucr")).load()) == 801
    ranges = [asked for name, asked in archive.requests if name == TRAIN]
    half = f"bytes={len(FILES[TRAIN]) // 2}-"
    expected = {"lies about length": [None], "busy": [None, None], "other range": [None, half, None]}
    assert ranges == expected.get(harm, [None, half])
    assert (tmp_path / "ucr" / NAME / TRAIN).read_bytes() == FILES[TRAIN]


@pytest.mark.parametrize("harm", ["cut short", "resets", "busy"])
def test_a_connection_that_keeps_breaking_is_told_and_the_next_command_goes_on(tmp_path, archive, harm):
    archive.harm = harm
    with pytest.raises(ValueError, match=r"could not be downloaded.*by hand"):
        UcrSource(NAME, str(tmp_path / "ucr")).describe()
    assert len([name for name, _ in archive.requests if name == TRAIN]) == download.ATTEMPTS
    assert not (tmp_path / "ucr" / NAME).exists()
    kept = sum(path.stat().st_size for path in (tmp_path / "ucr").rglob("*.part"))
    assert (kept > 0) == (harm != "busy")
    archive.harm, archive.requests = None, []
    assert len(UcrSource(NAME, str(tmp_path / "ucr")).load()) == 801
    assert (TRAIN, f"bytes={kept}-" if kept else None) in archive.requests
    assert sorted(p.name for p in leftovers(tmp_path / "ucr")) == [NAME, f"{NAME}_TEST.ts", TRAIN]


def test_a_file_that_is_shorter_than_the_record_states_is_told(tmp_path, archive):
    archive.harm = "wrong size"
    with pytest.raises(ValueError, match=r"could not be downloaded.*ended after 6,462 of 6,463 bytes"):
        UcrSource(NAME, str(tmp_path)).describe()
    assert not (tmp_path / NAME).exists()


def test_a_part_of_another_file_is_found_out(tmp_path, archive):
    """It counts as a part until it is whole, which is when its checksum is wrong; the next attempt starts over."""
    part = tmp_path / f".{NAME}-download" / f"{TRAIN}.part"
    part.parent.mkdir()
    part.write_bytes(b"?" * 100)
    assert len(UcrSource(NAME, str(tmp_path)).load()) == 801
    part.parent.mkdir()
    part.write_bytes(b"?" * 10**6)
    (tmp_path / NAME / TRAIN).unlink()
    assert len(UcrSource(NAME, str(tmp_path)).load()) == 801


def test_processes_that_ask_at_once_share_a_download(tmp_path, archive):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)

    def ask(results) -> None:
        start.wait()
        results.put(len(UcrSource(NAME, str(tmp_path / "ucr")).load()))

    results = context.Queue()
    processes = [context.Process(target=ask, args=(results,)) for _ in range(2)]
    for process in processes:
        process.start()
    result = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert result == [801, 801]
    assert len(archive.requests) == 3  # the record and two files


def test_offline_gives_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("KRONTIME_ZENODO", "http://127.0.0.1:9/records")
    with pytest.raises(ValueError, match=r"not on this machine.*ACSF1 needs no download") as caught:
        UcrSource(NAME, str(tmp_path / "ucr")).describe()
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / "ucr" / NAME) in str(caught.value)
    assert leftovers(tmp_path / "ucr") == []


def test_files_placed_by_hand_are_used(tmp_path, archive):
    (tmp_path / NAME).mkdir()
    for name, content in FILES.items():
        (tmp_path / NAME / name).write_bytes(content)
    assert len(UcrSource(NAME, str(tmp_path)).load()) == 801
    assert archive.requests == []


@pytest.mark.parametrize(("name", "near"), [("ACSF2", "ACSF1"), ("adiac", "Adiac"), ("Gunpoint", "GunPoint")])
def test_an_unknown_name_is_told_with_near_ones(tmp_path, archive, name, near):
    with pytest.raises(ValueError, match=rf"^name='{name}'.*did you mean .*{near}"):
        UcrSource(name, str(tmp_path / "ucr")).describe()
    assert not (tmp_path / "ucr").exists()


@pytest.mark.parametrize("name", ["../ACSF1", "a/b", "", "/etc"])
def test_a_name_is_never_a_path(tmp_path, archive, name):
    with pytest.raises(ValueError, match=r"^name="):
        UcrSource(name, str(tmp_path)).describe()
    assert archive.requests == []
