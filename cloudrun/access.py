"""The way to a machine: waiting for its first answer, the firewall before it, its host key.

`rent` has the machine from its provider; from here comes the shell that everything later goes over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from cloudrun.context import Context
from cloudrun.errors import (
    BootFailed,
    CommandFailed,
    ConnectFailed,
    HostKeyMismatch,
    MachineError,
    ProviderError,
)
from cloudrun.events import Note
from cloudrun.keys import host_key_lines
from cloudrun.machine_off import is_paused, refuse_ended
from cloudrun.models import Machine, MachineState, Market
from cloudrun.providers.base import Firewalled
from cloudrun.remote.hostkey import rotate_host_key
from cloudrun.remote.shell import Shell
from cloudrun.rent import SOON_S, refresh

MOST_KNOCK_S = 1.0  # between two tries to get a shell
GREETING = "true"
SILENT_S = 5.0  # a refused connection comes back sooner; a firewall says nothing
BOOT_TIMEOUT_S = 900.0  # a p2 with a DLAMI takes minutes; past this something is wrong


def await_ready(
    ctx: Context,
    machine: Machine,
    *,
    each_turn: Callable[[], None] = lambda: None,
    just_seen: bool = False,
    greeting: str = GREETING,
) -> tuple[Machine, Shell]:
    """Wait (blocking) until the machine runs and its shell answers; `each_turn` may raise to end the wait.

    just_seen: `machine` is what its provider said a moment ago, and need not say again.
    greeting: the command that its shell answers; CommandFailed where it fails.
    Raises BootFailed after BOOT_TIMEOUT_S, Preempted, or MachineError when it ended meanwhile.
    """
    give_up_at = time.monotonic() + BOOT_TIMEOUT_S
    wait_s = first_wait_s(ctx, machine)
    just_seen = just_seen or (machine.state is MachineState.PENDING and machine.market is not Market.OWN)
    ask_at = 0.0
    while True:
        each_turn()
        # a running machine is asked for its shell often, its provider seldom
        if time.monotonic() >= ask_at and not just_seen:
            machine = refresh(ctx, machine)
            refuse_ended(machine)
        just_seen = False
        if machine.state is MachineState.RUNNING and machine.address is not None:
            if ask_at == 0:
                wait_s, ask_at = SOON_S, time.monotonic() + ctx.settings.poll_s
            shell = knock(ctx, machine, greeting)
            if shell is not None:
                return machine, shell
        if is_paused(machine):
            give_up_at = time.monotonic() + BOOT_TIMEOUT_S
        if time.monotonic() > give_up_at:
            raise BootFailed(
                f"{machine.name} did not answer within {BOOT_TIMEOUT_S / 60:.0f} minutes",
                hint=f"cloudrun terminate {machine.name}, or look at it with cloudrun machines list",
            )
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, ctx.settings.poll_s if ask_at == 0 else MOST_KNOCK_S)


def first_wait_s(ctx: Context, machine: Machine) -> float:
    """Between the first two questions to its provider; one's own machine is there at once."""
    return SOON_S if machine.market is Market.OWN else ctx.settings.poll_s / 3


def knock(ctx: Context, machine: Machine, greeting: str = GREETING) -> Shell | None:
    """The machine's shell if it answers now. Where nothing came back at all, a firewall may stand between:
    this computer's address of now is let in. Raises HostKeyMismatch for a machine whose key was seen before,
    CommandFailed where it answers that the greeting failed.
    """
    shell = ctx.connect(machine)
    began_at = time.monotonic()
    try:
        shell.run(greeting, timeout_s=20)
    except ConnectFailed:
        shell.close()
    except CommandFailed:
        shell.close()
        raise
    except HostKeyMismatch:
        shell.close()
        if machine.provisioned or machine.market is Market.OWN:
            raise  # on a first boot the system shows a key of its own until ours is in place
    else:
        return shell
    if time.monotonic() - began_at > SILENT_S:
        open_access(ctx, machine)
    return None


def reach(ctx: Context, machine: Machine) -> Shell:
    """The machine's shell, connected; the firewall is opened to this computer's address where that helps."""
    refuse_ended(machine)
    shell = ctx.connect(machine)
    try:
        shell.run("true", timeout_s=20)
    except ConnectFailed:
        shell.close()
        machine = refresh(ctx, machine)
        refuse_ended(machine)
        open_access(ctx, machine)
        shell = ctx.connect(machine)
        shell.run("true", timeout_s=20)
    return shell


def open_access(ctx: Context, machine: Machine) -> None:
    """Let this computer's address of now in, where a firewall asks for it. What fails shows on connecting."""
    provider = ctx.provider(machine.provider)
    if isinstance(provider, Firewalled):
        with suppress(ProviderError):
            provider.open_access(machine)


def secure(ctx: Context, machine: Machine, shell: Shell) -> Machine:
    """Replace the host key of the boot payload by one that never left the machine. Idempotent."""
    folder = ctx.settings.keys_dir / machine.name
    if machine.market is Market.OWN or not (folder / "host_key").exists():
        return machine
    try:
        rotate_host_key(shell, folder)
    except MachineError as error:  # the old key still opens it, and nobody else's does
        ctx.on_event(Note(f"{machine.name} keeps the host key that it booted with: {error.message}"))
        return machine
    address = machine.address and replace(machine.address, host_key=host_key_lines(folder))
    return ctx.store.update_machine(machine.name, address=address)
