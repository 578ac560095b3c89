"""The downloader against a real HTTP server on loopback that misbehaves on request."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import download
import numpy as np
import pytest
from shared import fetch, mnist

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Source(ThreadingHTTPServer):
    """Serves `content` under every path; the attributes are its faults."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, '"v1"'
        self.cut_after: list[int] = []  # bytes sent by the next replies before the line is cut
        self.status = 0  # answer with this status only
        self.ranges = True  # honour Range
        self.asked: list[str] = []  # the Range of each request
        self.sent = 0  # bytes of content

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Source

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append(asked)
        if self.server.status:
            self.send_error(self.server.status)
            return
        whole, start = self.server.content, 0
        if asked and self.server.ranges and self.headers.get("If-Range") == self.server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(whole):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(whole)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(whole) - start))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        part = whole[start:]
        if self.server.cut_after:
            part = part[: self.server.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(part)
        self.server.sent += len(part)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    monkeypatch.setattr(fetch.time, "sleep", lambda _: None)  # the pauses between attempts
    server = Source()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_whole_file_arrives_once(source: Source, tmp_path: Path) -> None:
    for _ in range(2):
        assert fetch.fetch([f"{source.url}/a"], tmp_path / "sub" / "a", MD5).read_bytes() == CONTENT
    assert source.asked == [""]
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["a"]


def test_a_cut_transfer_goes_on_where_it_was(source: Source, tmp_path: Path) -> None:
    source.cut_after = [100_000, 50_000]
    assert fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5).read_bytes() == CONTENT
    assert source.asked == ["", "bytes=100000-", "bytes=150000-"]
    assert source.sent == len(CONTENT)  # not a byte twice


def test_a_later_call_goes_on_too(source: Source, tmp_path: Path) -> None:
    source.cut_after = [100_000] + [0] * fetch.ATTEMPTS
    with pytest.raises(fetch.FetchError, match="100000 bytes are kept"):
        fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5)
    assert not (tmp_path / "a").exists()
    assert fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5).read_bytes() == CONTENT
    assert source.sent == len(CONTENT)


def test_a_part_of_an_older_version_is_thrown_away(source: Source, tmp_path: Path) -> None:
    source.content, source.etag = b"old" * 70_000, '"v0"'
    source.cut_after = [100_000] + [0] * fetch.ATTEMPTS
    with pytest.raises(fetch.FetchError):
        fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5)
    source.content, source.etag = CONTENT, '"v1"'
    assert fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(source: Source, tmp_path: Path) -> None:
    source.ranges, source.cut_after = False, [100_000]
    assert fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5).read_bytes() == CONTENT
    assert source.asked == ["", "bytes=100000-"]
    assert source.sent == 100_000 + len(CONTENT)


def test_a_part_that_is_complete_already_is_accepted(source: Source, tmp_path: Path) -> None:
    (tmp_path / "a.partial").write_bytes(CONTENT)
    (tmp_path / "a.partial.json").write_text('{"version": "\\"v1\\""}')
    assert fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5).read_bytes() == CONTENT
    assert source.sent == 0


def test_a_wrong_checksum_leaves_nothing(source: Source, tmp_path: Path) -> None:
    source.content = CONTENT[::-1]
    with pytest.raises(fetch.FetchError, match=f"expected {MD5}"):
        fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.partial").exists()


def test_not_there_is_said_at_once_and_the_next_source_is_tried(source: Source, tmp_path: Path) -> None:
    source.status = 404
    with pytest.raises(fetch.FetchError, match="HTTP 404"):
        fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5)
    assert len(source.asked) == 1
    other = Source()
    thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    assert fetch.fetch([f"{source.url}/a", f"{other.url}/a"], tmp_path / "a", MD5).read_bytes() == CONTENT
    other.shutdown()
    other.server_close()
    thread.join()


def test_a_busy_server_is_asked_again_a_few_times(source: Source, tmp_path: Path) -> None:
    source.status = 503
    with pytest.raises(fetch.FetchError, match="HTTP 503"):
        fetch.fetch([f"{source.url}/a"], tmp_path / "a", MD5)
    assert len(source.asked) == fetch.ATTEMPTS


def test_nobody_listening_is_said_at_once(source: Source, tmp_path: Path) -> None:
    closed = Source()
    closed.server_close()
    with pytest.raises(fetch.FetchError, match="cannot connect"):
        fetch.fetch([f"{closed.url}/a"], tmp_path / "a", MD5)


def test_the_sets_are_asked_for_by_their_published_names(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of both sets, and a file that is there already (gzipped or not) is not fetched."""
    for checksums in (download.SVHN_MD5, mnist.MD5["mnist"]):
        for name in checksums:
            monkeypatch.setitem(checksums, name, MD5)
    monkeypatch.setenv("SVHN_URL", f"{source.url}/")
    monkeypatch.setenv("MNIST_URL", source.url)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(b"unpacked")
    download.fetch_svhn(tmp_path)
    mnist.fetch_set("mnist", tmp_path)
    assert len(source.asked) == 3 + 3
    assert sorted(file.name for file in (tmp_path / "svhn").iterdir()) == sorted(download.SVHN_MD5)
