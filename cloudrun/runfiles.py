"""Every file of a run at home, in one class, and the lock that makes one process at a time walk it."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

from cloudrun.config import Settings
from cloudrun.locks import Hold, holding


class RunFiles:
    """Paths below Settings.runs_dir/<run id>. Making one touches nothing.

    Where the run's outputs go too, a bucket's address, lies in Settings.buckets_dir as well: a clean-up of
    the run's files leaves it there, since what is in the bucket costs on.
    """

    def __init__(self, settings: Settings, run_id: str) -> None:
        self.folder = settings.runs_dir / run_id
        self.place = settings.buckets_dir / run_id
        self.bundle = self.folder / "bundle.json"  # manifest of the code snapshot
        self.record = self.folder / "run.json"  # enough to rebuild the store's rows
        self.outputs = self.folder / "outputs"
        self.checkpoint = self.outputs / "checkpoint"
        self.hashes = self.folder / "hashes.json"  # of outputs, between pushes to a bucket
        self._home = self.folder / "home.txt"  # the attempt whose outputs are all at home
        self._outbox = self.folder / "outbox.txt"  # until when a machine may store in the bucket
        self.supervisor_log = self.folder / "supervisor.log"
        self._lock = self.folder / "lock"

    def log(self, attempt: int) -> Path:
        """The attempt's log, byte for byte as on its machine."""
        return self.folder / f"attempt-{attempt}.log"

    def logs(self) -> list[Path]:
        """All attempts' logs, oldest first."""
        found = self.folder.glob("attempt-*.log")
        return sorted(found, key=lambda path: int(path.stem.removeprefix("attempt-")))

    def note_home(self, attempt: int, note: str = "") -> None:
        """What there is of that attempt's outputs is at home, verified: its machine is not needed any more.
        note: what there is to say of them in the run's last word."""
        _note(self._home, attempt, note)

    def home_note(self, attempt: int) -> str | None:
        """The note that was left with `note_home` for that attempt; None where that was not called."""
        return _noted(self._home, attempt)

    def note_outbox(self, attempt: int, until: datetime) -> None:
        """So long that attempt's machine may store in the run's bucket, by the addresses left there."""
        _note(self._outbox, attempt, until.isoformat())

    def outbox_until(self, attempt: int) -> datetime | None:
        """What was noted with `note_outbox` for that attempt; None where that was not called."""
        try:
            until = _noted(self._outbox, attempt)
            return None if until is None else datetime.fromisoformat(until)
        except ValueError:
            return None

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def save_record(self, data: Any) -> None:
        """Write run.json whole or not at all, and before it where the outputs go."""
        address = _address_in(data)
        if address and address != self.outputs_place():
            self.place.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(self.place, address)
        _write_whole(self.record, json.dumps(data, indent=1))

    def load_record(self) -> Any:
        """What `save_record` wrote. Raises OSError or ValueError."""
        return json.loads(self.record.read_text(encoding="utf-8"))

    def outputs_place(self) -> str:
        """The address of the bucket where the run's outputs go too, "" for none. A clean-up leaves it."""
        try:
            return self.place.read_text(encoding="utf-8")
        except OSError:
            pass  # a run of an earlier cloudrun, or one without a bucket
        try:
            return _address_in(self.load_record())
        except (OSError, ValueError):
            return ""

    def stack_locks(self) -> dict[str, dict[str, str]]:
        """What the machine of each attempt held when the run started there, by the attempt's number: versions
        as in `Machine.versions`. Empty where none is recorded."""
        try:
            locks = self.load_record()["stack_locks"]
            return {
                number: {str(name): str(version) for name, version in lock.items()}
                for number, lock in locks.items()
                if number.isdecimal()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def walking(self) -> AbstractContextManager[Hold]:
        """Be the one process that walks this run, truthy if we are. Never waits."""
        return holding(self._lock)

    def walked(self) -> bool:
        """Does some process walk this run now?"""
        with self.walking() as ours:
            return not ours


def _address_in(record: Any) -> str:
    """What a run's record says of its bucket."""
    try:
        return str(record["order"].get("outputs_to", ""))
    except (KeyError, TypeError, AttributeError):
        return ""


def _note(path: Path, attempt: int, text: str) -> None:
    path.write_text(f"{attempt}\n{text}", encoding="utf-8")


def _noted(path: Path, attempt: int) -> str | None:
    """What was noted there of that attempt; None where nothing was, or of another one."""
    try:
        number, _, text = path.read_text(encoding="utf-8").partition("\n")
    except OSError:
        return None
    return text if number == str(attempt) else None


def _write_whole(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
