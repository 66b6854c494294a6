"""Archive data sets: offline where the package has them, downloaded whole or not at all."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from krontime.data.sources import ucr
from krontime.data.sources.ucr import UcrSource
from krontime.errors import UserError

NAME = "Adiac"
FILES = {
    f"{NAME}_TRAIN.ts": b"@univariate true\n@equalLength true\n@classLabel true a b\n@data\n1,2,3:a\n4,5,6:b\n",
    f"{NAME}_TEST.ts": b"@univariate true\n@equalLength true\n@classLabel true a b\n@data\n1,2,9:a\n",
    f"{NAME}_eq_TRAIN.ts": b"not wanted",
}


class Archive(ThreadingHTTPServer):
    """A stand-in for the archive's server, on this machine, which can be told to misbehave."""

    daemon_threads = False  # closing the server waits for its answers

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.harm: str | None = None
        self.num_requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def record(self) -> bytes:
        files = [
            {
                "key": name,
                "size": len(content) + (1 if self.harm == "wrong size" else 0),
                "checksum": "md5:" + hashlib.md5(b"x" if self.harm == "wrong checksum" else content).hexdigest(),
                "links": {"self": f"{self.url}/files/{name}"},
            }
            for name, content in FILES.items()
            if not (self.harm == "no test file" and "TEST" in name)
        ]
        return json.dumps({"files": files}).encode()


class Handler(BaseHTTPRequestHandler):
    server: Archive

    def do_GET(self) -> None:
        self.server.num_requests += 1
        name = self.path.rsplit("/", 1)[-1]
        content = FILES[name] if name in FILES else self.server.record()
        if self.server.harm == "not JSON" and name not in FILES:
            content = b"<html>sign in</html>"
        if self.server.harm == "gone" and name in FILES:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = self.server.harm == "cut short" and name.endswith("TEST.ts")
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def archive(monkeypatch) -> Iterator[Archive]:
    with Archive() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(ucr, "RECORD_URL", server.url + "/{record}")
        monkeypatch.setattr(ucr, "TIMEOUT_S", 5)
        yield server
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
    assert archive.num_requests == 0


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
    assert data.series(2).tolist() == [[1, 2, 9]]
    assert sorted(p.name for p in leftovers(tmp_path / "ucr")) == [NAME, f"{NAME}_TEST.ts", f"{NAME}_TRAIN.ts"]
    asked = archive.num_requests
    UcrSource(NAME, str(tmp_path / "ucr")).describe()
    assert archive.num_requests == asked


@pytest.mark.parametrize("harm", ["cut short", "wrong size", "wrong checksum", "no test file", "not JSON", "gone"])
def test_a_broken_download_leaves_nothing_and_says_what_to_do(tmp_path, archive, harm):
    archive.harm = harm
    with pytest.raises(UserError, match=rf"could not be downloaded.*{NAME}_TRAIN\.ts.*by hand") as caught:
        UcrSource(NAME, str(tmp_path / "ucr")).describe()
    assert len(caught.value.problems) == 1
    assert leftovers(tmp_path / "ucr") == []
    archive.harm = None
    assert len(UcrSource(NAME, str(tmp_path / "ucr")).load()) == 3


def test_offline_gives_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ucr, "RECORD_URL", "http://127.0.0.1:9/{record}")
    with pytest.raises(UserError, match=r"not on this machine.*ACSF1 needs no download") as caught:
        UcrSource(NAME, str(tmp_path / "ucr")).describe()
    assert len(caught.value.problems) == 1
    assert str(tmp_path / "ucr" / NAME) in str(caught.value)
    assert leftovers(tmp_path / "ucr") == []


def test_files_placed_by_hand_are_used(tmp_path, archive):
    (tmp_path / NAME).mkdir()
    for name, content in FILES.items():
        (tmp_path / NAME / name).write_bytes(content)
    assert len(UcrSource(NAME, str(tmp_path)).load()) == 3
    assert archive.num_requests == 0


@pytest.mark.parametrize(("name", "near"), [("ACSF2", "ACSF1"), ("adiac", "Adiac"), ("Gunpoint", "GunPoint")])
def test_an_unknown_name_is_told_with_near_ones(tmp_path, archive, name, near):
    with pytest.raises(UserError, match=rf"data\.name='{name}'.*did you mean .*{near}"):
        UcrSource(name, str(tmp_path / "ucr")).describe()
    assert not (tmp_path / "ucr").exists()


@pytest.mark.parametrize("name", ["../ACSF1", "a/b", "", "/etc"])
def test_a_name_is_never_a_path(tmp_path, archive, name):
    with pytest.raises(UserError, match=r"data\.name="):
        UcrSource(name, str(tmp_path)).describe()
    assert archive.num_requests == 0
