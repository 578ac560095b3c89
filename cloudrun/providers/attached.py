"""Any host with SSH as a machine: made known by hand, never launched, never switched off by us.

What is known of a machine is one file, attached/NAME.json below the home folder. Terminating an
attached machine forgets it; the host itself is not touched.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import secrets
import shutil
import socket
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from cloudrun.config import Settings
from cloudrun.errors import ImageNotFound, NotOffered, ProviderError, Refused
from cloudrun.models import LaunchSpec, Machine, MachineState, Market, Offer, SshAddress, Stack
from cloudrun.providers.base import Need
from cloudrun.remote.hostkey import scan_host_key

REGION = "yours"
TYPE = "attached"
SSH_PORT = 22
REACH_TIMEOUT_S = 3.0  # of one TCP connection, to tell a machine that is up from one that is not
USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")  # in ~/.ssh, as ssh itself tries them
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # it names a file
TARGET = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<ipv6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^@:\s/]+))(?::(?P<port>\d{1,5}))?"
)


class AttachedProvider:
    """Six verbs and Attachable. Nobody bills these machines through us."""

    name = "attached"

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.home / "attached"
        self._keys_dir = settings.keys_dir

    def offers(self, need: Need) -> list[Offer]:  # noqa: ARG002  # nothing is for rent here
        return []

    def find_image(self, stack: Stack, region: str) -> str:  # noqa: ARG002  # it has its system already
        raise ImageNotFound("attached machines have no images", hint="they run what is installed on them")

    def launch(self, spec: LaunchSpec) -> Machine:
        raise NotOffered(
            f"attached machines are not launched ({spec.name})",
            hint="make one known with: cloudrun machines attach NAME user@host",
        )

    def describe(self, machine: Machine) -> Machine:
        """RUNNING where its SSH port takes a connection (3 s at most), STOPPED where not,
        TERMINATED once it is forgotten."""
        known = self._load(self._path(machine.name))
        if known is None or known.token != machine.token or known.address is None:
            return replace(machine, state=MachineState.TERMINATED)
        state = MachineState.RUNNING if _reachable(known.address) else MachineState.STOPPED
        return replace(machine, state=state, address=known.address)

    def terminate(self, machine: Machine) -> None:
        """Forget it. The host stays as it is."""
        known = self._load(self._path(machine.name))
        if known and known.token == machine.token:
            self._path(machine.name).unlink(missing_ok=True)
            shutil.rmtree(self._keys_dir / machine.name, ignore_errors=True)  # its known_hosts

    def list_machines(self) -> list[Machine]:
        known = [self._load(path) for path in sorted(self._folder.glob("*.json"))]
        return [self.describe(machine) for machine in known if machine]

    # --- Attachable ---

    def attach(self, name: str, target: str, *, host_key: str, key_path: str = "") -> Machine:
        """Make user@host[:port] known under that name; no connection is made. key_path "" takes the
        first of the user's usual keys. Raises Refused for a name that is taken."""
        if not NAME.fullmatch(name):
            raise Refused(f"{name!r} cannot name a machine", hint="use letters, digits, . _ -")
        if self._path(name).exists():
            raise Refused(
                f"a machine named {name} is attached already",
                hint=f"choose another name, or forget it with: cloudrun terminate {name}",
            )
        user, host, port = parse_target(target)
        record = {
            "token": secrets.token_hex(16),
            "name": name,
            "host": host,
            "port": port,
            "user": user,
            "key_path": str(_user_key(key_path)),
            "host_key": _key_line(host_key),
            "attached_at": datetime.now(UTC).isoformat(),
        }
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._path(name).with_suffix(f".{record['token']}")
        draft.write_text(json.dumps(record, indent=1))
        draft.replace(self._path(name))
        return self.describe(_machine(record))

    def scan_host_key(self, target: str) -> str:
        """The host key line that the host shows now. Raises ConnectFailed."""
        _, host, port = parse_target(target)
        return scan_host_key(host, port)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _load(self, path: Path) -> Machine | None:
        try:
            return _machine(json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProviderError(
                f"{path} cannot be read: {error!r}", hint="remove that file and attach the machine again"
            ) from error


def parse_target(target: str) -> tuple[str, str, int]:
    """(user, host, port) of [user@]host[:port]; an IPv6 address stands in brackets. The user is
    this computer's by default, as with ssh."""
    found = TARGET.fullmatch(target)
    port = int(found["port"] or SSH_PORT) if found else 0
    if not found or not 0 < port < 65536 or (found["host"] or "").startswith("-"):
        raise Refused(f"{target!r} is not a host", hint="write user@host or user@host:port")
    return found["user"] or getpass.getuser(), found["ipv6"] or found["host"], port


def _machine(record: dict[str, object]) -> Machine:
    token = str(record["token"])
    address = SshAddress(
        host=str(record["host"]),
        port=int(str(record["port"])),
        user=str(record["user"]),
        key_path=Path(str(record["key_path"])),
        host_key=str(record["host_key"]),
    )
    return Machine(
        id=f"attached-{hashlib.sha256(token.encode()).hexdigest()[:10]}",
        name=str(record["name"]),
        provider=AttachedProvider.name,
        region=REGION,
        type=TYPE,
        market=Market.OWN,
        state=MachineState.STOPPED,
        token=token,
        address=address,
        price_per_hour_usd=Decimal(0),
        launched_at=datetime.fromisoformat(str(record["attached_at"])),
    )


def _user_key(key_path: str) -> Path:
    if key_path:
        path = Path(key_path).expanduser().absolute()
        if not path.is_file():
            raise Refused(f"there is no key {path}", hint="give the private key's file")
        return path
    for name in USUAL_KEYS:
        if (path := Path.home() / ".ssh" / name).is_file():
            return path
    raise Refused(
        "none of your usual SSH keys exists",
        hint="give one with --key, or make one with: ssh-keygen -t ed25519",
    )


def _key_line(host_key: str) -> str:
    """The line's type and key, without host names before it or a comment after."""
    words = host_key.split()
    for kind, key in pairwise(words):
        if key.startswith("AAAA") and re.fullmatch(r"[a-z0-9@.-]+", kind):
            return f"{kind} {key}"
    raise Refused("that is not a host key", hint="use the line that ssh-keyscan shows: ssh-ed25519 AAAA...")


def _reachable(address: SshAddress) -> bool:
    with suppress(OSError), socket.create_connection((address.host, address.port), REACH_TIMEOUT_S):
        return True
    return False
