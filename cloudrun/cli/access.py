"""machines ssh, exec and tunnel: a machine's terminal, commands and ports."""

from __future__ import annotations

import shlex
import threading

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import machine_argument, open_client
from cloudrun.errors import ConnectFailed, UsageError

# Options behind NAME belong to the command there, as with ssh.
REMOTE = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command(
    cls=Verb,
    context_settings=REMOTE,
    examples=("cloudrun ssh bench", "cloudrun ssh bench -- htop"),
    options_metavar="",
)
@machine_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, command: tuple[str, ...]) -> int:
    """Open a terminal on a machine, or run a command there.

    With a command this is for programs that need a terminal; `machines exec` is for scripts. The
    exit code is the command's own; 5 is ours when the machine cannot be reached.
    """
    client = open_client()
    return client.reach(name).interactive(remote_line(command))


@click.command(
    "exec",
    cls=Verb,
    context_settings=REMOTE,
    examples=(
        "cloudrun machines exec bench -- nvidia-smi -L",
        "cloudrun machines exec bench 'df -h | tail -1'",
        "tar c data | cloudrun machines exec bench -- tar x -C .cloudrun/data",
    ),
    options_metavar="",
)
@machine_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def execute(name: str, command: tuple[str, ...]) -> int:
    """Run one command on a machine.

    One word is a line for the machine's shell; several words are a program and its arguments, kept
    apart as they are here. What is piped in is passed on. The exit code is the command's own; 5 is
    ours when the machine cannot be reached.
    """
    line = remote_line(command)
    if not line:
        raise UsageError("no command to run", hint=f"cloudrun machines exec {name} -- nvidia-smi")
    client = open_client()
    from cloudrun.cli import relay

    try:
        return relay.run(client.shell(name), line)
    except ConnectFailed:  # nothing was sent yet
        return relay.run(client.reach(name), line)


@click.command(
    cls=Verb,
    examples=("cloudrun machines tunnel bench 8888", "cloudrun machines tunnel bench 6006 --local 7007"),
)
@machine_argument
@click.argument("port", type=click.IntRange(1, 65535))
@click.option(
    "--local",
    "local_port",
    type=click.IntRange(0, 65535),
    default=None,
    help="Port here; 0 takes any free one. The same without it.",
)
@click.option(
    "--host",
    "remote_host",
    default="127.0.0.1",
    show_default=True,
    help="Where the port is, seen from the machine.",
)
def tunnel(name: str, port: int, local_port: int | None, remote_host: str) -> None:
    """Reach a port of a machine from here.

    Stays until Ctrl-C. Only programs on this computer can use it.
    """
    client = open_client()
    shell = client.reach(name)
    wanted = port if local_port is None else local_port
    with shell.forward(wanted, port, remote_host=remote_host) as here:
        render.data(f"http://127.0.0.1:{here}")
        render.say(f"127.0.0.1:{here} leads to port {port} of {name}; Ctrl-C ends it")
        threading.Event().wait()


def remote_line(words: tuple[str, ...]) -> str:
    """One word is shell; several are quoted, so that they arrive as they are. A leading -- is ours."""
    words = words[1:] if words[:1] == ("--",) else words
    return words[0] if len(words) == 1 else shlex.join(words)
