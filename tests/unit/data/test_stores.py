"""Files of a store arrive whole, once, or not at all."""

import hashlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import aiohttp
import fsspec
import numpy as np
import pytest

from krontime.commands.inferred import with_data
from krontime.config.cross_checks import data_key_problems
from krontime.data import stores
from krontime.data.stores import local_copy
from krontime.errors import UserError
from krontime.runs.prepare import load_data

CONTENT = bytes(range(256)) * 12_000
"""More than one chunk."""


class Server(ThreadingHTTPServer):
    """A store on this machine that can be told to misbehave."""

    pause_s = 0.0
    daemon_threads = False  # closing the server waits for its answers

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"set/x.npz": CONTENT, "set/SHA256SUMS": sums({"x.npz": CONTENT})}
        self.harm: str | None = None
        self.times = 10**6
        self.takes_ranges = True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/set"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        if (content := self.head()) is not None:
            self.begin(content, 0)

    def do_GET(self) -> None:
        if (content := self.head()) is None:
            return
        asked = self.headers.get("Range") if self.server.takes_ranges else None
        first = int((asked or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        is_data = self.path.endswith("x.npz")
        if is_data:
            self.server.asked.append(asked)
        rest = content[first:]
        self.begin(content, first)
        if is_data:
            time.sleep(self.server.pause_s)
        if not (self.server.harm and is_data and self.server.times > 0):
            self.wfile.write(rest)
            return
        self.server.times -= 1
        if self.server.harm == "other content":
            self.wfile.write(b"?" * len(rest))
            return
        self.wfile.write(rest[: len(rest) // 2])
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        self.connection.close()

    def head(self) -> bytes | None:
        content = self.server.files.get(unquote(self.path.partition("?")[0]).lstrip("/"))
        if content is None:
            self.send_error(404)
        return content

    def begin(self, content: bytes, first: int) -> None:
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def sums(files: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(stores, "PAUSE_S", 0.001)
        yield server
        server.shutdown()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()


def test_a_file_is_fetched_once_and_again_where_it_has_changed(server, tmp_path, caplog):
    copy = local_copy(f"{server.url}/x.npz", tmp_path)
    assert copy.read_bytes() == CONTENT
    assert copy.name == "x.npz"
    assert local_copy(f"{server.url}/x.npz", tmp_path) == copy
    assert server.asked == [None]
    server.files |= {"set/x.npz": b"new", "set/SHA256SUMS": sums({"x.npz": b"new"})}
    assert local_copy(f"{server.url}/x.npz", tmp_path).read_bytes() == b"new"
    server.shutdown()
    server.server_close()
    assert local_copy(f"{server.url}/x.npz", tmp_path).read_bytes() == b"new"
    assert "the copies in" in caplog.text


@pytest.mark.parametrize("takes_ranges", [True, False])
@pytest.mark.parametrize("harm", ["cut short", "other content"])
def test_a_broken_transfer_is_tried_again(server, tmp_path, harm, takes_ranges):
    server.harm, server.times, server.takes_ranges = harm, 1, takes_ranges
    assert local_copy(f"{server.url}/x.npz", tmp_path).read_bytes() == CONTENT
    resumed = any(asked and not asked.startswith("bytes=0-") for asked in server.asked)
    assert resumed == (harm == "cut short" and takes_ranges)


def test_a_transfer_may_take_long_but_not_stall(server, tmp_path, monkeypatch):
    """aiohttp ends every answer after five minutes, here after 0.3 seconds, unless it is told otherwise."""
    monkeypatch.setattr(aiohttp.client, "DEFAULT_TIMEOUT", aiohttp.ClientTimeout(total=0.3))
    monkeypatch.setattr(Server, "pause_s", 0.5)
    fsspec.get_filesystem_class("http").clear_instance_cache()  # with connections that were told so
    local_copy(f"{server.url}/x.npz", tmp_path)
    assert server.asked == [None]
    monkeypatch.setattr(stores, "TIMEOUT_S", 0.1)
    with pytest.raises(ValueError, match="can't be read"):
        local_copy(f"{server.url}/x.npz", tmp_path / "other")


@pytest.mark.parametrize(("harm", "kept"), [("cut short", ["x.npz.part"]), ("other content", [])])
def test_a_file_that_never_arrives_whole_is_refused_and_can_be_resumed(server, tmp_path, harm, kept):
    server.harm = harm
    with pytest.raises(ValueError, match=r"x\.npz (can't be read|arrived damaged).*the same command tries again"):
        local_copy(f"{server.url}/x.npz", tmp_path)
    assert [path.name for path in tmp_path.rglob("x.npz*")] == kept
    server.harm = None
    assert local_copy(f"{server.url}/x.npz", tmp_path).read_bytes() == CONTENT


def test_a_folder_is_all_that_its_list_names(memory, tmp_path):
    files = {"a/1.npy": b"one", "b/2.npy": b"two"}
    for name, content in {**files, "SHA256SUMS": sums(files), "c.npy": b"not listed"}.items():
        memory.pipe(f"/bucket/sounds/{name}", content)
    copy = local_copy("memory://bucket/sounds/", tmp_path)
    copied = {str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*.npy")}
    assert copied == files


def test_any_name_can_be_fetched_from_a_server(server, tmp_path):
    names = ["a #1?.npy", "b 100%25.npy", "ü;+&.npy"]
    files = {name: name.encode() for name in names}
    server.files = {f"set/{name}": content for name, content in {**files, "SHA256SUMS": sums(files)}.items()}
    copy = local_copy(server.url, tmp_path)
    assert {path.name: path.read_bytes() for path in copy.glob("*.npy")} == files
    assert local_copy(f"{server.url}/a%20%231%3F.npy", tmp_path) == tmp_path / copy / names[0]


def test_a_whole_bucket_may_have_a_dot_in_its_name(memory, tmp_path):
    memory.pipe("/my.bucket/SHA256SUMS", sums({"1.npy": b"one"}))
    memory.pipe("/my.bucket/1.npy", b"one")
    memory.pipe("/SHA256SUMS", b"of nobody")
    assert (local_copy("memory://my.bucket", tmp_path) / "1.npy").read_bytes() == b"one"


@pytest.mark.parametrize(
    "address",
    [
        "https://me:hush@host/x.npz",
        "https://hush@host/x.npz",
        "https://host/x.npz?sig=hush",
        "ftp://me:hush@host/x.npz",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(address):
    source = {"_target_": "source", "path": address, "annotations": address}
    problems = data_key_problems({"data": {"path": address, "source": source, "batch_size": 4}})
    assert [problem.partition("=")[0] for problem in problems] == ["data.path", "data.source.annotations"]
    assert all("host/x.npz'" in problem and "hush" not in problem for problem in problems)
    with pytest.raises(UserError, match="a login or a query") as error:
        with_data("train", [f"data.path={address}"])
    assert "hush" not in str(error.value)


MISTAKES = {
    "https://": "expected the address of a file or a folder",
    "reference://x.npz::memory://bucket/x.npz": "expected one address, without :: and another one in it",
    "nowhere://bucket/x.npz": "no such kind of store; expected s3://, gs://, https:// or another",
    "s3://bucket/x.npz": "expected pip install of that package first",
    "memory://bucket/y.npz": r"expected a line for y\.npz in memory://bucket/SHA256SUMS",
    "memory://empty/x": r"or memory://empty/x/SHA256SUMS with a line for each file of a folder",
    "memory://outside/x.npz": r"line 1: expected a name below that folder, not '\.\./x\.npz'",
    "memory://other/x.npz": r"line 1: expected a checksum and a name, as sha256sum writes them",
    "http://127.0.0.1:9/x.npz": r"SHA256SUMS can't be read .*the same command tries again",
}


@pytest.mark.parametrize("address", MISTAKES)
def test_what_is_wrong_with_an_address_is_said_with_its_key(memory, compose, tmp_path, monkeypatch, address):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    memory.pipe("/bucket/SHA256SUMS", sums({"x.npz": b""}))
    memory.pipe("/outside/SHA256SUMS", sums({"../x.npz": b""}))
    memory.pipe("/other/SHA256SUMS", b"<html>sign in</html>")
    config = compose("data=npz", f"data.path={address}", f"paths.cache={tmp_path}")
    with pytest.raises(UserError, match=MISTAKES[address]) as error:
        load_data(config)
    assert str(error.value).startswith(f"data.path={address!r}: ")


def test_what_reads_data_reads_the_copy(memory, compose, tmp_path):
    np.savez(tmp_path / "set.npz", X=np.arange(24.0).reshape(4, 6), y=["a", "b", "a", "b"], split=[0, 0, 1, 1])
    content = (tmp_path / "set.npz").read_bytes()
    memory.pipe("/bucket/set.npz", content)
    memory.pipe("/bucket/SHA256SUMS", sums({"set.npz": content}))
    config = compose("data=npz", "data.path=memory://bucket/set.npz", f"paths.cache={tmp_path / 'cache'}")
    assert config["data"]["name"] == "set"
    data = load_data(config)
    memory.rm("/bucket/set.npz")
    assert data.class_names == ("a", "b")
    assert np.array_equal(load_data(config).values, data.values)
