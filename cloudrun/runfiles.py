"""Every file of a run at home, in one class, and the lock that makes one process at a time walk it."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cloudrun.config import Settings
from cloudrun.locks import Hold, holding


class RunFiles:
    """Paths below Settings.runs_dir/<run id>. Making one touches nothing."""

    def __init__(self, settings: Settings, run_id: str) -> None:
        self.folder = settings.runs_dir / run_id
        self.bundle = self.folder / "bundle.json"  # manifest of the code snapshot
        self.record = self.folder / "run.json"  # enough to rebuild the store's rows
        self.outputs = self.folder / "outputs"
        self.checkpoint = self.outputs / "checkpoint"
        self.hashes = self.folder / "hashes.json"  # of outputs, between pushes to a bucket
        self._home = self.folder / "home.txt"  # the attempt whose outputs are all at home
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
        self._home.write_text(f"{attempt}\n{note}", encoding="utf-8")

    def home_note(self, attempt: int) -> str | None:
        """The note that was left with `note_home` for that attempt; None where that was not called."""
        try:
            number, _, note = self._home.read_text(encoding="utf-8").partition("\n")
        except OSError:
            return None
        return note if number == str(attempt) else None

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def save_record(self, data: Any) -> None:
        """Write run.json whole or not at all."""
        beside = self.record.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps(data, indent=1), encoding="utf-8")
        beside.replace(self.record)

    def load_record(self) -> Any:
        """What `save_record` wrote. Raises OSError or ValueError."""
        return json.loads(self.record.read_text(encoding="utf-8"))

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
