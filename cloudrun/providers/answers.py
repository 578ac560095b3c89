"""What a cloud answered, kept on disk for a while, so that planning twice asks once.

One file an answer below cache/answers of the home folder, written whole or not at all: any number of
processes may read and write. Losing the folder costs nothing but the calls.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cloudrun.config import Settings

OLDEST = timedelta(days=2)  # files past any use; keys of a login change by the hour and leave theirs behind
WORKERS = 16  # calls at once: AWS, say, has 17 regions that every account may use

A = TypeVar("A")
R = TypeVar("R")


class Account(Protocol):
    """Whom the cloud answered."""

    @property
    def settings(self) -> Settings: ...

    def fingerprint(self) -> str:
        """A short name of cloud, credentials and endpoint: one account's answers are not another's. Raises
        Credentials where there are none."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON value, and when the cloud gave it."""

    value: Any
    asked_at: datetime


def kept(account: Account, name: str, max_age: timedelta, ask: Callable[[], Any]) -> Answer:
    """The answer of that name if it is young enough, else a new one from `ask`, which returns a JSON value
    and may raise. A file that cannot be read or written only means to ask again."""
    path = _path(account, name)
    now = datetime.now(UTC)
    found = _load(path)
    if found and timedelta(0) <= now - found.asked_at < max_age:
        return found
    answer = Answer(ask(), now)
    _save(path, answer)
    return answer


def forget(account: Account, name: str) -> None:
    """That answer is known to be wrong by now: the next one asks."""
    with suppress(OSError):
        _path(account, name).unlink(missing_ok=True)


def side_by_side(work: Callable[[A], R], items: Iterable[A]) -> list[R]:
    """The results in the order of the items, WORKERS at a time. Raises what the first failing one raises."""
    listed = list(items)
    if len(listed) < 2:
        return [work(item) for item in listed]
    with ThreadPoolExecutor(min(len(listed), WORKERS), thread_name_prefix="asking") as pool:
        return list(pool.map(work, listed))


def digest(words: Iterable[str]) -> str:
    """A short name for a set of words, part of an answer's name."""
    return sha256("\n".join(sorted(words)).encode()).hexdigest()[:12]


def _path(account: Account, name: str) -> Path:
    folder = account.settings.home / "cache" / "answers"
    return folder / f"{account.fingerprint()}-{_file_name(name)}.json"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)


def _load(path: Path) -> Answer | None:
    try:
        stored = json.loads(path.read_bytes())
        return Answer(stored["value"], datetime.fromisoformat(stored["asked_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(path: Path, answer: Answer) -> None:
    text = json.dumps({"asked_at": answer.asked_at.isoformat(), "value": answer.value})
    with suppress(OSError):  # a full or read-only disk: the answer is there, only not for later
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(draft).replace(path)
        finally:
            Path(draft).unlink(missing_ok=True)
        _sweep(path.parent)


def _sweep(folder: Path) -> None:
    """Remove what is too old for anybody, drafts of killed writers included."""
    limit = time.time() - OLDEST.total_seconds()
    for path in folder.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()
