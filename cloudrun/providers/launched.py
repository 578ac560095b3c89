"""What this computer keeps of a launch: launch.json beside the machine's keys, written before the call.

Until the cloud has answered it holds the exact request, so that whoever repeats the launch after a kill
sends the same request with the same token (EC2) or the same names (Azure), which is answered with the same
machines. After that it holds the machines only: the request has the host's private key in it.

    keys/NAME/launch.json      one machine
    keys/.NAME/launch.json     several at once; each of them has its own folder keys/NAME-i too
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cloudrun.config import Settings
from cloudrun.keys import HOST_KEY, LOGIN_KEY, save_text
from cloudrun.models import Machine
from cloudrun.providers.base import Leftover
from cloudrun.records import from_json, to_json

FILE = "launch.json"
KEYS, HERE = "keys", "here"  # the kind of a leftover on this computer, and its region
UNDER_WAY = timedelta(minutes=5)  # a launch of the last minutes may be going on this very moment
KEY_FILES = (LOGIN_KEY, f"{LOGIN_KEY}.pub", HOST_KEY, f"{HOST_KEY}.pub")


@dataclass(frozen=True, slots=True)
class Launched:
    """One launch as its file has it."""

    token: str
    region: str
    asked_at: datetime
    request: Mapping[str, Any]  # what makes the machine; empty once it was answered
    machines: tuple[Machine, ...] = ()
    provider: str = "aws"  # files of the first version do not name it

    def save(self, folder: Path) -> None:
        text = json.dumps(
            {
                "provider": self.provider,
                "token": self.token,
                "region": self.region,
                "asked_at": self.asked_at.isoformat(),
                "request": self.request,
                "machines": to_json(self.machines),
            }
        )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        save_text(folder / FILE, text)


def load_launched(folder: Path) -> Launched | None:
    """None where there is none, or where it cannot be read: then the launch is asked for anew, and its
    token finds what it made."""
    try:
        data = json.loads((folder / FILE).read_text())
        return Launched(
            token=data["token"],
            region=data["region"],
            asked_at=datetime.fromisoformat(data["asked_at"]),
            request=data["request"],
            machines=tuple(from_json(Machine, each) for each in data["machines"]),
            provider=data.get("provider", "aws"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def launch_folder(settings: Settings, name: str, *, batch: bool) -> Path:
    """A dot in front: no machine can have that name."""
    return settings.keys_dir / (f".{name}" if batch else name)


def share_keys(settings: Settings, launched: Launched, folder: Path) -> None:
    """Give every machine of a launch of several a folder of its own: host keys part ways later."""
    for machine in launched.machines:
        own = settings.keys_dir / machine.name
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in KEY_FILES:
            if (folder / name).is_file():
                save_text(own / name, (folder / name).read_text())
        replace(launched, request={}, machines=(machine,)).save(own)


def forget_keys(settings: Settings, machines: Sequence[Machine]) -> None:
    """Remove the folders of machines that have ended. A folder of a later machine of the same name stays."""
    for machine in machines:
        folder = settings.keys_dir / machine.name
        known = load_launched(folder)
        if known is None or known.token == machine.token:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in settings.keys_dir.glob(".*"):
        several = load_launched(folder)
        if several and several.machines and not _any_left(settings, several):
            shutil.rmtree(folder, ignore_errors=True)


def all_launched(settings: Settings) -> list[tuple[Path, Launched]]:
    """Every launch that this computer remembers, by its folder."""
    folders = sorted(settings.keys_dir.iterdir()) if settings.keys_dir.is_dir() else []
    found = [(folder, load_launched(folder)) for folder in folders]
    return [(folder, known) for folder, known in found if known]


def left_keys(settings: Settings, provider: str, machines: Sequence[Machine]) -> list[Leftover]:
    """Keys of launches whose machines are gone; `machines` are all that the provider has."""
    tokens = {machine.token for machine in machines}
    return [
        Leftover(
            provider=provider,
            region=HERE,
            kind=KEYS,
            id=folder.name,
            name=str(folder),
            machine=folder.name.removeprefix("."),
            since=known.asked_at,
            in_use=now() - known.asked_at < UNDER_WAY,
        )
        for folder, known in all_launched(settings)
        if known.provider == provider and known.token not in tokens
    ]


def free_keys(settings: Settings, leftover: Leftover) -> None:
    """Remove such keys. Idempotent."""
    shutil.rmtree(settings.keys_dir / leftover.id, ignore_errors=True)


def now() -> datetime:
    return datetime.now(UTC)


def _any_left(settings: Settings, several: Launched) -> bool:
    return any((settings.keys_dir / machine.name / FILE).exists() for machine in several.machines)
