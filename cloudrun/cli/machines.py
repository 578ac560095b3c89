"""machines: list, start, stop, terminate, extend, attach, adopt. Terminals and tunnels are in access.py."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Entry, LazyGroup, Verb
from cloudrun.cli.machine_view import (
    FINDING_COLUMNS,
    MACHINE_COLUMNS,
    billed,
    finding_rows,
    machine_fields,
    machine_row,
)
from cloudrun.cli.options import (
    complete_machine,
    confirm,
    dry_run_option,
    json_option,
    machine_argument,
    open_client,
    yes_option,
)
from cloudrun.cli.plan_view import machine_kind
from cloudrun.cli.shapes import Shape, finding_shape, machine_shape
from cloudrun.cli.text import clock, money, until
from cloudrun.cli.watch import Watcher
from cloudrun.client import Client
from cloudrun.errors import HostKeyMismatch, MachineError, NotFound, UsageError
from cloudrun.keys import fingerprint
from cloudrun.models import Machine, RunState

RUNS_SHOWN = 20

machines = LazyGroup(
    "machines",
    help="Everything about machines.\n\nA machine answers to its name, its id, or the beginning of either.",
    sections={
        "Commands": (
            Entry(
                "list", "cloudrun.cli.machines:list_machines", "Show the machines, their price and their end."
            ),
            Entry("start", "cloudrun.cli.machines:start", "Start a stopped machine."),
            Entry("stop", "cloudrun.cli.machines:stop", "Switch a machine off and keep its disk."),
            Entry("terminate", "cloudrun.cli.machines:terminate", "End machines for good."),
            Entry("extend", "cloudrun.cli.machines:extend", "Move a machine's deadline."),
            Entry("doctor", "cloudrun.cli.machines:doctor", "Look whether a machine is as it should be."),
            Entry("resize-disk", "cloudrun.cli.machines:resize_disk", "Make a machine's disk bigger."),
            Entry("attach", "cloudrun.cli.machines:attach", "Use a host that you have already."),
            Entry("adopt", "cloudrun.cli.machines:adopt", "Find machines and runs that the store lacks."),
            Entry("ssh", "cloudrun.cli.access:ssh", "Open a terminal on a machine, or run a command there."),
            Entry("exec", "cloudrun.cli.access:execute", "Run one command on a machine."),
            Entry("tunnel", "cloudrun.cli.access:tunnel", "Reach a port of a machine from here."),
        )
    },
    examples=("cloudrun machines list", "cloudrun machines exec bench -- nvidia-smi"),
)


@click.command("list", cls=Verb, examples=("cloudrun machines list", "cloudrun machines list --all --json"))
@click.option("--all", "show_all", is_flag=True, help="Also machines that ended.")
@json_option
def list_machines(show_all: bool, as_json: bool) -> None:
    """Show the machines, their price and their end."""
    client = open_client()
    found = client.machines(all=show_all)
    if as_json:
        render.as_json([_shape(client, machine) for machine in found])
        return
    if not found:
        render.say("no machines; launch one with: cloudrun launch local")
        render.say("those that another computer launched are found with: cloudrun machines adopt")
        return
    now = datetime.now(UTC)
    rows = [machine_row(m, client.machine_cost_usd(m), _active(client, m), now) for m in found]
    render.table(MACHINE_COLUMNS, rows)


@click.command(cls=Verb, examples=("cloudrun start bench",))
@machine_argument
@json_option
def start(name: str, as_json: bool) -> None:
    """Start a stopped machine.

    Waits until it answers. Refused where the month's budget does not reach. A local machine also comes
    back this way after this computer was restarted.
    """
    client = open_client()
    _tell(client, client.start(name, on_event=Watcher()), as_json=as_json)


@click.command(cls=Verb, examples=("cloudrun stop bench", "cloudrun stop bench -y"))
@machine_argument
@dry_run_option
@yes_option
@json_option
def stop(name: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Switch a machine off and keep its disk.

    Runs on it end. A rented machine's disk is billed on.
    """
    client = open_client()
    machine = client.machine(name)
    active = _active(client, machine)
    render.say(
        _loss("stops", machine, active, "its disk stays" + (", and is billed" if billed(machine) else ""))
    )
    if dry_run:
        return
    confirm(f"Stop {machine.name}?", yes=yes, harmless=not active)
    _tell(client, client.stop(machine.name), as_json=as_json)


@click.command(
    cls=Verb,
    examples=("cloudrun terminate bench", "cloudrun terminate --all --dry-run"),
)
@click.argument("names", nargs=-1, shell_complete=complete_machine)
@click.option("--all", "every", is_flag=True, help="Every machine there is.")
@dry_run_option
@yes_option
@json_option
def terminate(names: tuple[str, ...], every: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """End machines for good.

    Runs on them end, and what lies only on their disks is lost. Outputs at home stay. An attached
    host is only forgotten.
    """
    client = open_client()
    found = _meant(client, names, every=every)
    actives = {machine.name: _active(client, machine) for machine in found}
    for machine in found:
        fate = "the host itself stays as it is" if machine.provider == "attached" else "its disk is deleted"
        render.say(_loss("terminates", machine, actives[machine.name], fate))
    if dry_run:
        return
    question = f"Terminate {found[0].name}?" if len(found) == 1 else f"Terminate these {len(found)} machines?"
    harmless = not any(actives.values()) and not any(map(billed, found))
    confirm(question, yes=yes, harmless=harmless)
    ended = client.terminate(*(machine.name for machine in found))
    if as_json:
        shapes = [_shape(client, machine) for machine in ended]
        render.as_json(shapes if len(shapes) > 1 or every else shapes[0])
        return
    for machine in ended:
        cost = money(client.machine_cost_usd(machine))
        render.say(f"{machine.name} is {machine.state.value}; it cost {cost}")


@click.command("resize-disk", cls=Verb, examples=("cloudrun machines resize-disk k80 200",))
@machine_argument
@click.argument("disk_gb", type=click.IntRange(1), metavar="GB")
@click.option("--disk", default="", metavar="NAME", help="Azure: another disk that is attached to it.")
@dry_run_option
@yes_option
@json_option
def resize_disk(name: str, disk_gb: int, disk: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make a machine's disk bigger.

    Its file system grows with it; while it runs at AWS, at Azure it goes off and on for it. A disk
    cannot be made smaller, and the bigger one is billed until the machine is terminated.
    """
    client = open_client()
    machine = client.machine(name)
    before = f"{machine.disk_gb} GB" if machine.disk_gb and not disk else "its size of now"
    render.say(
        f"grows {f'the disk {disk}' if disk else 'the disk'} of {machine.name} from {before} to {disk_gb} GB"
    )
    if dry_run:
        return
    confirm("Grow it?", yes=yes, harmless=True)
    _tell(client, client.resize_disk(machine.name, disk_gb=disk_gb, disk=disk), as_json=as_json)


@click.command(cls=Verb, examples=("cloudrun machines extend bench --hours 2",))
@machine_argument
@click.option("--hours", type=float, required=True, help="Move the deadline by this much.")
@json_option
def extend(name: str, hours: float, as_json: bool) -> None:
    """Move a machine's deadline.

    Counted from its deadline, or from now where it has none. The machine's own guard is told. Shows
    what it may still cost; refused where the month's budget does not reach so far.
    """
    client = open_client()
    machine = client.extend(name, hours=hours, on_event=Watcher())
    if as_json:
        render.as_json(_shape(client, machine))
        return
    if machine.deadline_at:
        now = datetime.now(UTC)
        render.data(
            f"{machine.name} ends at {clock(machine.deadline_at, now)} ({until(machine.deadline_at, now)})"
        )
        if billed(machine):
            rest, so_far = client.cost_until_deadline_usd(machine), client.machine_cost_usd(machine)
            render.data(f"it has cost {money(so_far)}, and may cost {money(rest)} more until then")


@click.command(
    cls=Verb,
    examples=(
        "cloudrun machines attach lab me@lab.example.org",
        "cloudrun machines attach lab me@10.0.0.5:2222 --key ~/.ssh/id_ed25519 --host-key SHA256:...",
    ),
)
@click.argument("name")
@click.argument("target", metavar="USER@HOST[:PORT]")
@click.option(
    "--key", "key_path", default="", type=click.Path(dir_okay=False), help="Private key to log in with."
)
@click.option(
    "--host-key", default="", metavar="FINGERPRINT", help="The host key's fingerprint, for scripts."
)
@yes_option
@json_option
def attach(name: str, target: str, key_path: str, host_key: str, yes: bool, as_json: bool) -> None:
    """Use a host that you have already.

    Shows the fingerprint of the host's key and asks whether it is the right one; compare it with
    what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows on the host. From then on only that
    key is accepted.
    """
    client = open_client()
    line = client.scan_host_key(target)
    shown = fingerprint(line)
    render.say(f"{target} shows the {line.split()[0]} key {shown}")
    if host_key and host_key != shown:
        raise HostKeyMismatch(
            f"{target} shows {shown}, not {host_key}", hint="somebody else may answer there"
        )
    if not host_key:
        confirm("Is that the host's key?", yes=yes)
    _tell(client, client.attach_machine(name, target, host_key=line, key_path=key_path), as_json=as_json)


@click.command(cls=Verb, examples=("cloudrun machines adopt", "cloudrun machines adopt --provider local"))
@click.option("--provider", default="", help="Only machines of this provider.")
@json_option
def adopt(provider: str, as_json: bool) -> None:
    """Find machines and runs that the store lacks.

    Rebuilds the store from the providers' tags, from the machines' own records and from the run
    folders at home.
    """
    client = open_client()
    found = client.adopt(provider=provider, on_event=Watcher())
    if as_json:
        render.as_json([_shape(client, machine) for machine in found])
        return
    for machine in found:
        render.data(machine.name)
    render.say("nothing was missing" if not found else f"known again: {len(found)}")


@click.command(cls=Verb, examples=("cloudrun machines doctor k80", "cloudrun machines doctor k80 --fix"))
@machine_argument
@click.option("--fix", is_flag=True, help="Mend what can be mended without loss, and look again.")
@click.option("--stack", default="", metavar="FILE", help="The stack that it was launched with, if a file.")
@json_option
def doctor(name: str, fix: bool, stack: str, as_json: bool) -> int:
    """Look whether a machine is as it should be.

    Asks its provider and, in one command, the machine: guard, driver, GPU, versions against its stack lock,
    held packages, steps, clock, disks. --fix says which steps it reapplies; while a run goes on there it
    reapplies none. The exit code is 4 while anything is left to mend.
    """
    client = open_client()
    found = client.examine(client.machine(name).name, stack=stack, mend=fix, on_event=Watcher())
    if as_json:
        render.as_json([finding_shape(finding) for finding in found])
    else:
        render.table(FINDING_COLUMNS, finding_rows(found, render.columns()))
    return 0 if all(finding.ok for finding in found) else MachineError.exit_code


def _meant(client: Client, names: tuple[str, ...], *, every: bool) -> list[Machine]:
    """The machines that the words of the command mean."""
    if every == bool(names):
        raise UsageError("name machines, or say --all", hint="cloudrun machines list shows them")
    if every:
        found = client.store.list_machines()
        if not found:
            raise NotFound("there is no machine", hint="cloudrun machines list --all shows those that ended")
        return found
    return list({machine.name: machine for machine in map(client.machine, names)}.values())


def _tell(client: Client, machine: Machine, *, as_json: bool) -> None:
    if as_json:
        render.as_json(_shape(client, machine))
        return
    render.lines(machine_fields(machine))


def _shape(client: Client, machine: Machine) -> Shape:
    runs = [run.id for run in client.store.list_runs(machine=machine.name, limit=RUNS_SHOWN)]
    return machine_shape(machine, cost_usd=client.machine_cost_usd(machine), runs=runs)


def _active(client: Client, machine: Machine) -> list[str]:
    """Ids of the runs that go on there."""
    found = client.store.list_runs(machine=machine.name, active=True)
    return [run.id for run in found if run.state is not RunState.RELEASING]


def _loss(verb: str, machine: Machine, active: list[str], fate: str) -> str:
    runs = f"; runs that end: {', '.join(active)}" if active else "; no run goes on there"
    return f"{verb} {machine.name} ({machine_kind(machine)}, {machine.state.value}){runs}; {fate}"
