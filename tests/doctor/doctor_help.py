"""What the tests of the doctor do to a machine, and see of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudrun.client import Client
from cloudrun.context import Context
from cloudrun.health import Finding
from cloudrun.models import Result
from cloudrun.remote.shell import Shell

DRIVER_GONE = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)


def run(client: Client, command: str) -> str:
    return client.shell("k80").run(command, timeout_s=120).text


def replace_program(client: Client, path: str, text: str) -> None:
    """A program of the machine gives way to another."""
    command = f"cat >program && sudo install -m 755 program {path}"
    client.shell("k80").run(command, input=f"#!/bin/sh\n{text}\n".encode(), timeout_s=60)


def lose_driver(client: Client) -> None:
    replace_program(client, "/usr/bin/nvidia-smi", f'echo "{DRIVER_GONE}"; exit 9')


def wrong(client: Client) -> dict[str, Finding]:
    """What is not as it should be, by the check."""
    return {finding.check: finding for finding in client.examine("k80") if not finding.ok}


def mended(client: Client) -> set[str]:
    """What --fix mended; nothing is left to mend."""
    found = client.examine("k80", mend=True)
    assert [finding for finding in found if not finding.ok] == []
    return {finding.check for finding in found if finding.mended}


def counting(ctx: Context, commands: list[str]) -> Context:
    """A context whose shells keep the commands that they are given."""
    return replace(ctx, connect=lambda machine: CountingShell(ctx.connect(machine), commands))


class CountingShell:
    """A shell that keeps the commands that it is given."""

    def __init__(self, shell: Shell, commands: list[str]) -> None:
        self._shell = shell
        self._commands = commands
        self.address = shell.address

    def run(self, command: str, **options: Any) -> Result:
        self._commands.append(command)
        return self._shell.run(command, **options)

    def open(self, command: str) -> Any:
        self._commands.append(command)
        return self._shell.open(command)

    def interactive(self, command: str = "") -> int:
        return self._shell.interactive(command)

    def forward(self, local_port: int, remote_port: int, *, remote_host: str = "127.0.0.1") -> Any:
        return self._shell.forward(local_port, remote_port, remote_host=remote_host)

    def close(self) -> None:
        self._shell.close()
