"""What a cloud says to make a machine, and what it may then do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

METADATA_ADDRESS = "169.254.169.254"  # of AWS's and Azure's metadata services alike

PACKAGES_ADDRESS = "169.254.169.253"  # of the rehearsal's own repositories, on port 80

METADATA_URL = "{metadata}"  # within a value of MachineSpec.environ: where its metadata service is reached

Answer = tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]
Respond = Callable[[str, str, Mapping[str, str], bytes], Answer]
"""Method, path with query, headers with lower-case names, body -> HTTP status, body, and headers where
text/plain is not all there is to say. Called from any thread."""

OnOff = Callable[[str], None]
"""Told the id of a machine that switched itself off, from a thread of the machine's own."""


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a cloud decides about a machine before it boots for the first time."""

    id: str  # the cloud's id, names the folder
    host: str  # the loopback address, 127.x.y.z, where its SSH server answers
    hostname: str
    user: str  # the image's login user
    user_data: bytes  # as the cloud got it: cloud-config or a script, gzipped or plain
    disk_gb: int
    respond: Respond  # its metadata service
    environ: Mapping[str, str] = field(default_factory=dict)  # of boot scripts, SSH sessions and sudo there
    image: Path | None = (
        None  # what MachineHost.capture kept: the disk that it begins with, else an empty one
    )
    gpu: str = ""  # what nvidia-smi says there once a driver is installed: a line "NAME, MIB" for each GPU


class SimMachine(Protocol):
    """One machine. Every method may be called from any thread and blocks; none is called under another."""

    @property
    def running(self) -> bool: ...

    def boot(self) -> None:
        """Switch it on: SSH answers when this returns (< 2 s). The first boot does all that the user data
        says, every boot its bootcmd and per-boot scripts; scripts that take longer go on behind it.
        Nothing when it runs already. Raises BootFailed."""
        ...

    def power_off(self, *, grace_s: float = 0) -> None:
        """Switch it off from outside: SIGTERM, grace_s, SIGKILL. The disk stays. Idempotent."""
        ...

    def move(self, host: str) -> None:
        """Answer at another address from the next boot on."""
        ...

    def grow(self, disk_gb: int) -> None:
        """Give it a bigger disk, also while it runs. Its file system grows when someone inside tells it to,
        or at the next boot. Smaller than before: nothing."""
        ...

    def snapshot(self, to: Path) -> None:
        """Copy its disk into that folder, which is made. Raises MachineError while it runs, or where it never
        did."""
        ...

    def destroy(self) -> None:
        """Switch it off and remove all of it. Idempotent."""
        ...
