"""sim: a cloud on this computer to rehearse on. Nothing here is loaded by the commands of real work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Entry, LazyGroup, Verb
from cloudrun.cli.options import complete_machine, json_option, open_client, yes_option
from cloudrun.cli.table import Column
from cloudrun.config import load_settings
from cloudrun.errors import NotFound, Refused, UsageError
from cloudrun.sim.record import AWS, AZURE, ENDED, SimRecord, find_sim, the_sim

COLUMNS = (
    Column("INSTANCE", 3),
    Column("CLOUD", 7, optional=True),
    Column("MACHINE", 0),
    Column("TYPE", 2),
    Column("ZONE", 4),
    Column("MARKET", 5),
    Column("STATE", 1),
    Column("NOTICE", 6, optional=True),
)
REAL_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET")

# EC2 user guide, "Spot Instance interruption notices"; Azure, "Scheduled Events for Linux VMs": Preempt.
NOTICE_S = {AWS: 120.0, AZURE: 30.0}

sim = LazyGroup(
    "sim",
    help="A cloud on this computer to rehearse on.\n\nIt needs no account and costs nothing. Machines boot, "
    "can be logged in to, are preempted; prices are the catalogue's, and everything that shows one says so.",
    sections={
        "Commands": (
            Entry("up", "cloudrun.cli.sim:up", "Begin a rehearsal cloud."),
            Entry("env", "cloudrun.cli.sim:env", "Print what makes a shell use it."),
            Entry("status", "cloudrun.cli.sim:status", "Show what runs there, as the cloud itself knows it."),
            Entry("preempt", "cloudrun.cli.sim:preempt", "Take a spot machine, as its provider would."),
            Entry("drill", "cloudrun.cli.drill:drill", "Play a mishap through and tell what was saved."),
            Entry("down", "cloudrun.cli.sim:down", "End the rehearsal cloud and all its machines."),
        )
    },
    examples=('cloudrun sim up && eval "$(cloudrun sim env)"', "cloudrun sim drill preempt"),
)


@click.command(cls=Verb, examples=("cloudrun sim up",))
@click.option(
    "--machines",
    "kind",
    type=click.Choice(["namespace", "embedded"]),
    help="With a disk and root of their own (needs root here), or plain.",
)
@yes_option
@json_option
def up(kind: str | None, yes: bool, as_json: bool) -> None:
    """Begin a rehearsal cloud.

    It listens on loopback only, and runs until `sim down`. Its ledger is kept apart from the real
    one.
    """
    _refuse_real_keys(yes=yes)
    try:
        from cloudrun.sim import daemon
    except ImportError as error:
        raise _no_sim(error) from error
    record = daemon.up(_folder(), kind=kind or "")
    if as_json:
        render.as_json(_shape(record))
        return
    render.say(f"a rehearsal cloud is up: {_where(record)}")
    render.say('use it from this shell with: eval "$(cloudrun sim env)"')


@click.command(cls=Verb, examples=('eval "$(cloudrun sim env)"',))
@json_option
def env(as_json: bool) -> None:
    """Print what makes a shell use it."""
    record = the_sim(_folder())
    if as_json:
        render.as_json(record.environment())
        return
    render.lines(record.exports())


@click.command(cls=Verb, examples=("cloudrun sim status",))
@click.option("--all", "every", is_flag=True, help="Also what has ended.")
@json_option
def status(every: bool, as_json: bool) -> None:
    """Show what runs there, as the cloud itself knows it."""
    record = the_sim(_folder())
    found = [each for each in record.instances() if every or each["state"] not in ENDED]
    if as_json:
        render.as_json({**_shape(record), "instances": found})
        return
    render.say(f"{_where(record)}, SSH on port {record.ssh_port}")
    if not found:
        render.say("no machine runs there")
        return
    render.table(COLUMNS, [_row(each) for each in found])


@click.command(cls=Verb, examples=("cloudrun sim preempt k80", "cloudrun sim preempt k80 --notice-s 0"))
@click.argument("name", shell_complete=complete_machine)
@click.option(
    "--notice-s",
    type=click.FloatRange(0),
    default=None,
    help="Seconds between the notice and the end (AWS 120, Azure 30); 0: no notice at all.",
)
@click.option(
    "--action",
    type=click.Choice(["terminate", "stop", "hibernate"]),
    help="Other than what the machine was launched with.",
)
def preempt(name: str, notice_s: float | None, action: str | None) -> None:
    """Take a spot machine, as its provider would.

    NAME is a machine's name or id, or the instance's.
    """
    record = the_sim(_folder())
    cloud, instance = _find_instance(record, name)
    notice_s = NOTICE_S[cloud] if notice_s is None else notice_s
    record.tell("preempt", cloud, instance_id=instance, notice_s=notice_s, action=action)
    end = f"it goes in {notice_s:.0f} s" if notice_s else "it is gone"
    render.say(f"{name} ({_short(instance)}) is taken back: {end}")


@click.command(cls=Verb, examples=("cloudrun sim down",))
def down() -> None:
    """End the rehearsal cloud and all its machines.

    Outputs and ledger of the rehearsal stay.
    """
    folder = _folder()
    record = find_sim(folder)
    try:
        from cloudrun.sim import daemon
    except ImportError as error:
        raise _no_sim(error) from error
    daemon.down(folder)
    render.say("the rehearsal cloud is down" if record else "no rehearsal cloud was up")
    if os.environ.get("CLOUDRUN_SIM"):
        render.say("this shell still points at it; a new one does not")


def _folder() -> Path:
    return load_settings().sim_dir


def _refuse_real_keys(*, yes: bool) -> None:
    """The double takes any key: nobody should send it a real one, or think that it is the real cloud."""
    if yes or load_settings().sim is not None:
        return
    found = [name for name in REAL_KEYS if os.environ.get(name)]
    if found:
        raise Refused(
            f"{found[0]} is set: real credentials would go to a rehearsal",
            hint=f"unset {' '.join(found)}, or add --yes",
        )


def _find_instance(record: SimRecord, name: str) -> tuple[str, str]:
    """Cloud and id of the instance that a machine is: by our own records, else by the clouds' tags."""
    instances = [each for each in record.instances() if each["state"] not in ENDED]
    clouds = {each["id"]: each["cloud"] for each in instances}
    if name in clouds:
        return clouds[name], name
    try:
        machine = open_client().machine(name)
    except NotFound:
        machine = None
    if machine is not None and machine.id in clouds:
        return clouds[machine.id], machine.id
    tagged = [each["id"] for each in instances if each["tags"].get("cloudrun-name") == name]
    if not tagged:
        raise NotFound(f"no machine {name!r} runs in the rehearsal cloud", hint="cloudrun sim status")
    return clouds[tagged[0]], str(tagged[0])


def _row(instance: dict[str, Any]) -> tuple[str, ...]:
    return (
        _short(instance["id"]),
        instance["cloud"],
        instance["tags"].get("cloudrun-name", ""),
        instance["type"],
        instance["zone"] or instance["region"],
        instance["market"],
        instance["state"],
        instance["notice"],
    )


def _short(id: str) -> str:
    """Azure's ids are paths of resources; their last part tells enough."""
    return id.rpartition("/")[2]


def _where(record: SimRecord) -> str:
    return f"AWS at {record.url}, Azure at {record.azure_url}, {record.kind} machines"


def _shape(record: SimRecord) -> dict[str, Any]:
    return {
        "url": record.url,
        "azure_url": record.azure_url,
        "pid": record.pid,
        "ssh_port": record.ssh_port,
        "machines": record.kind,
    }


def _no_sim(error: ImportError) -> UsageError:
    return UsageError(f"the rehearsal cloud cannot be loaded: {error}", hint="pip install 'cloudrun[sim]'")
