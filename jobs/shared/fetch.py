"""Fetch a file over HTTP: resumable, checked against its published checksum, visible only when whole.

A cut transfer leaves FILE.partial and FILE.partial.json (which version of the file it is a part of); the next
call asks for the rest only (Range, with If-Range so that a file that changed at the source starts over).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

CHUNK = 1 << 20
CONNECT_TIMEOUT_S = 10.0  # silence this long ends an attempt; offline, name resolution fails sooner
ATTEMPTS = 5  # in a row without a single new byte
SAY_EVERY_S = 10.0


class FetchError(Exception):
    """Not there, not reachable, or not the file that was published."""


def sources(variable: str, published: tuple[str, ...]) -> list[str]:
    """Where a set comes from: the address in that environment variable, or where it was published."""
    own = os.environ.get(variable)
    return [base.rstrip("/") for base in ((own,) if own else published)]


def fetch_missing(folder: Path, md5: dict[str, str], bases: list[str], *, title: str) -> None:
    """Make `folder` hold the files whose checksums are given. One that is there, gzipped or not, is taken.

    Raises FetchError where a missing one cannot be had.
    """
    for name, checksum in md5.items():
        there = folder / name
        if there.is_file() or there.with_name(name.removesuffix(".gz")).is_file():
            continue
        print(f"fetching {title}: {name}", flush=True)
        fetch([f"{base}/{name}" for base in bases], there, checksum)


def fetch(urls: list[str], to: Path, md5: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> Path:
    """Make `to` hold the published file, from the first of `urls` that serves it. Does nothing if it does.

    md5 because that is what the publishers' tools print for these sets; it guards against a broken transfer.
    """
    if to.is_file() and _md5(to) == md5:
        return to
    to.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        try:
            _download(url, to, timeout_s)
            _accept(url, to, md5)
        except FetchError as error:
            failures.append(str(error))
            continue
        return to
    raise FetchError(f"cannot fetch {to.name}: " + "; ".join(failures))


def _download(url: str, to: Path, timeout_s: float) -> None:
    """Bring the partial file to its full length, going on from what is there after each cut."""
    idle, have = 0, _size(_partial(to))
    while True:
        try:
            if _download_once(url, to, timeout_s):
                return
            problem = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise FetchError(f"{url}: HTTP {error.code} {error.reason}") from error
            problem = f"HTTP {error.code} {error.reason}"
        except urllib.error.URLError as error:  # no such name, refused, no route: waiting does not help
            raise FetchError(f"{url}: cannot connect ({error.reason})") from error
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
        idle = 0 if _size(_partial(to)) > have else idle + 1
        have = _size(_partial(to))
        if idle >= ATTEMPTS:
            raise FetchError(f"{url}: {problem}, {ATTEMPTS} times without a new byte; {have} bytes are kept")
        time.sleep(min(0.1 * 2**idle, 5.0))


def _download_once(url: str, to: Path, timeout_s: float) -> bool:
    """One request. True when the partial file has the length that the server announced."""
    partial = _partial(to)
    version = _read_version(to) if partial.exists() else ""
    have = partial.stat().st_size if version else 0
    headers = {"User-Agent": "cloudrun-job", "Accept-Encoding": "identity"}
    if have:
        headers.update({"Range": f"bytes={have}-", "If-Range": version})
    try:
        reply = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing is left to send
            raise
        return _length_when_complete(error.headers.get("Content-Range")) == have or _start_over(to)
    with reply:
        have = have if reply.status == 206 else 0  # 200: a server without ranges, or a changed file
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else None
        _write_version(to, reply.headers.get("ETag") or reply.headers.get("Last-Modified") or "")
        have = _append(reply, partial, have, total, to.name)
    return total is None or have == total


def _append(reply: http.client.HTTPResponse, partial: Path, have: int, total: int | None, name: str) -> int:
    with partial.open("r+b" if have else "wb") as file:
        file.seek(have)
        file.truncate()
        said = time.monotonic()
        while chunk := reply.read1(CHUNK):
            file.write(chunk)
            have += len(chunk)
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                print(f"  {name}: {have / 1e6:,.0f} of {(total or 0) / 1e6:,.0f} MB", flush=True)
    return have


def _accept(url: str, to: Path, md5: str) -> None:
    found = _md5(_partial(to))
    if found != md5:
        _start_over(to)
        raise FetchError(f"{url}: checksum {found}, expected {md5}; what came was thrown away")
    _partial(to).replace(to)
    _version(to).unlink()


def _start_over(to: Path) -> bool:
    _partial(to).unlink()
    return False


def _read_version(to: Path) -> str:
    """The validator under which the part was sent; "" if there is none, and then nothing can be resumed."""
    try:
        return str(json.loads(_version(to).read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write_version(to: Path, version: str) -> None:
    # RFC 9110: If-Range takes a strong validator only, W/"..." would never match
    strong = "" if version.startswith("W/") else version
    _version(to).write_text(json.dumps({"version": strong}), encoding="utf-8")


def _length_when_complete(content_range: str | None) -> int:
    """N of "bytes */N", -1 if the server does not say."""
    tail = (content_range or "").rpartition("/")[2]
    return int(tail) if tail.isdigit() else -1


def _partial(to: Path) -> Path:
    return to.with_name(to.name + ".partial")


def _version(to: Path) -> Path:
    return to.with_name(to.name + ".partial.json")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _md5(file: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
