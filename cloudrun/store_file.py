"""The store's file: opening it, one transaction at a time, and what SQLite's refusals mean to a user."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from cloudrun.errors import ConfigError
from cloudrun.store_schema import migrate, roll_back

T = TypeVar("T")

PATIENCE_S = 60.0  # how long a process waits for the others; a transaction of ours takes milliseconds
RETRY_S = 0.005
ADOPT_HINT = "`cloudrun machines adopt` rebuilds the store from the providers and the machines"

_BUSY_CODES = {5, 6, 15}  # SQLITE_BUSY, SQLITE_LOCKED, SQLITE_PROTOCOL (a race for WAL's own locks)
_DAMAGED_CODES = {11, 26}  # SQLITE_CORRUPT, SQLITE_NOTADB
_FULL_CODE = 13  # SQLITE_FULL


class StoreFile:
    """An SQLite file in WAL mode. Opened on first use; may be shared by threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._opened_as: tuple[int, int, int] | None = None
        self._closer: Callable[[], object] | None = None

    def close(self) -> None:
        """Let the file go; the next use opens it again. Safe to call twice."""
        with self._lock:
            if self._closer is not None:
                self._closer()
            self._db = self._closer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """One moment's view for all statements of a method."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def _write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Taking the write lock at once keeps a read from turning into a write, which SQLite
        refuses without waiting when another process was faster."""
        with self._transaction("BEGIN IMMEDIATE", durable=durable) as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self.path):
            db = self._open()
            # A commit survives the death of any process either way. FULL makes it survive a power cut
            # too, at the price of a disk flush: asked for where a paid call follows, because a machine
            # that runs with no line in the ledger would cost money that nobody knows of.
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            patiently(lambda: db.execute(begin))
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                roll_back(db)
                raise

    def _open(self) -> sqlite3.Connection:
        """The connection, made anew where the file was deleted or replaced under us, and in a forked
        child, to which SQLite connections must not be carried."""
        if self._db is not None and self._opened_as == self._identity():
            return self._db
        if self._closer is not None and self._opened_as and self._opened_as[0] == os.getpid():
            self._closer()
        self._db = open_store(self.path)
        self._opened_as = self._identity()
        self._closer = weakref.finalize(self, self._db.close)
        return self._db

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return os.getpid(), stat.st_dev, stat.st_ino

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """A value that no cloudrun wrote is damage to the file."""
        try:
            yield
        except (ValueError, TypeError, KeyError, ArithmeticError) as error:
            raise damaged(self.path, str(error)) from error


def open_store(path: Path) -> sqlite3.Connection:
    """A connection to the store at path, made or migrated first where that is needed. Blocking: waits
    for other processes. Raises ConfigError for a file that cannot be used."""
    with explained(path):
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"no store can be kept in {path.parent}: {error.strerror}",
                hint="set CLOUDRUN_HOME to a folder that you can write",
            ) from error
        return patiently(lambda: _connect(path))


def patiently(action: Callable[[], T]) -> T:
    """Do it, and again while SQLite says busy without having waited: its busy timeout does not cover
    the switch to WAL, the recovery after a crash, nor the moment when the last user closes."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if _code(error) not in _BUSY_CODES or time.monotonic() > give_up_at:
                raise
        time.sleep(RETRY_S)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the file into a ConfigError with the way out."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise  # our own mistake, or a constraint that the caller knows the meaning of
    except sqlite3.DatabaseError as error:
        raise _explanation(path, error) from error


def damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(f"the store {path} is damaged: {why}", hint=f"move it away; {ADOPT_HINT}")


def _connect(path: Path) -> sqlite3.Connection:
    # isolation_level None: transactions are begun and ended by us alone
    # check_same_thread False: the Store's lock lets one thread in at a time
    db = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
    try:
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA foreign_keys = ON")
        migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _explanation(path: Path, error: sqlite3.DatabaseError) -> ConfigError:
    code = _code(error)
    if code in _DAMAGED_CODES:
        return damaged(path, str(error))
    if code in _BUSY_CODES:
        return ConfigError(
            f"the store {path} was held by another process for {PATIENCE_S:.0f} s",
            hint="look for a stopped cloudrun process, end it and try again",
        )
    if code == _FULL_CODE:
        return ConfigError(f"no room to write the store {path}", hint="free some disk space and try again")
    if not os.access(path.parent, os.W_OK):
        return ConfigError(f"the store {path} cannot be written", hint="make its folder writable by you")
    return ConfigError(f"the store {path} cannot be used: {error}", hint=f"move it away; {ADOPT_HINT}")


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error that the Python module raised by itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
