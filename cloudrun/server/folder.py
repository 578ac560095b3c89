"""The folder that is a local machine, and the two records in it.

    machine.json        who it is and what is wanted of it; written by the provider and by `--release`
    server.json         the server that serves it now; written by that server alone
    server.lock         held (flock) by the server for its life: two can never serve one machine
    power.lock          held while it is switched on or off
    server.log          what the server had to say
    guard.json          the policy that boot gives to the guard
    host_key            the machine's own ed25519 host key; host_key.pub its public line
    authorized_keys     the one user key that opens it
    home/               its disk

Records are replaced whole (write, rename), so that a reader never sees half of one.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from cloudrun.keys import save_text
from cloudrun.server import processes

FALLBACK_HOST = "127.0.0.1"  # where a system has no other loopback address


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """machine.json. Times are ISO 8601 with offset, "" for none."""

    token: str
    name: str
    type: str
    stack: str
    host: str  # the loopback address it shall listen on
    run_owned: bool
    launched_at: str
    deadline_at: str = ""
    ended_at: str = ""
    gpu: str = ""
    gpu_count: int = 0
    gpu_memory_gib: float = 0.0
    gpu_capability: float | None = None
    stopped: bool = False  # switched off on purpose, by `stop` or by its guard


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """server.json: which process serves, and where."""

    pid: int
    mark: str  # processes.start_mark
    host: str
    port: int


class MachineFolder:
    """Paths and records of one local machine. Construction does no I/O."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = path / "home"
        self.agent_base = self.home / ".cloudrun"
        self.log = path / "server.log"
        self.lock = path / "server.lock"
        self.policy = path / "guard.json"
        self.host_key = path / "host_key"
        self.authorized_keys = path / "authorized_keys"

    @contextmanager
    def power(self) -> Iterator[None]:
        """Held while the machine is switched on or off: nothing is started into a machine that is ending."""
        with (self.path / "power.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def machine(self) -> MachineRecord | None:
        """None where there is no machine."""
        return _load(MachineRecord, self.path / "machine.json")

    def save_machine(self, record: MachineRecord) -> None:
        save_text(self.path / "machine.json", json.dumps(asdict(record), indent=1))

    def server(self) -> ServerRecord | None:
        """The last server's record, whether it still runs or not."""
        return _load(ServerRecord, self.path / "server.json")

    def save_server(self, record: ServerRecord) -> None:
        save_text(self.path / "server.json", json.dumps(asdict(record)))

    def live_server(self) -> ServerRecord | None:
        """The server that serves now, by pid and start time."""
        record = self.server()
        return record if record and processes.alive(record.pid, record.mark) else None

    def host_key_line(self) -> str:
        """The public host key as one line "type base64"."""
        return " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])


_Record = TypeVar("_Record", MachineRecord, ServerRecord)


def _load(kind: type[_Record], path: Path) -> _Record | None:
    try:
        stored: Mapping[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in stored.items() if name in known})
