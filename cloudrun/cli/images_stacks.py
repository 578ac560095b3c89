"""images list, show and check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cloudrun.cli import render
from cloudrun.cli.images_bake import show_own
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import json_option, open_client
from cloudrun.cli.plan_view import field
from cloudrun.cli.shapes import listed_image_shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import visible_lines
from cloudrun.cli.watch import Watcher
from cloudrun.errors import Refused
from cloudrun.models import Stack

if TYPE_CHECKING:
    from cloudrun.client import Client
    from cloudrun.compat import Verdict

HASH_DIGITS = 12
YES, NO = "yes", "-"
LIST = (
    Column("STACK", 0),
    Column("WHAT", 1, least=20),
    Column("GPUS", 2, least=12),
    Column("BASE IMAGES", 3, least=16),
)
CHECK = (
    Column("GPU", 0),
    Column("CAP", 1, right=True),
    Column("TYPE", 0, optional=True),
    Column("RUNS", 0),
    Column("WHY NOT", 2, least=24, optional=True),
)


@click.command(
    cls=Verb,
    examples=("cloudrun images list", "cloudrun images list --own --json", "cloudrun images list --json"),
)
@click.option("--own", is_flag=True, help="Only images of your own; with --json these instead of the stacks.")
@json_option
def list_images(own: bool, as_json: bool) -> None:
    """List the stacks, and images of your own.

    Each stack with the GPUs that it drives; each image with what it costs a month, about, and the
    machines that were launched from it. Asks every provider of which there are credentials; not with --json
    alone, which gives the stacks.
    """
    client = open_client()
    stacks = client.stacks()
    if as_json and not own:
        render.as_json([_stack_shape(client, stack) for stack in stacks])
        return
    if not own:  # before the providers are asked, which takes a moment
        render.table(LIST, [_list_row(client, stack) for stack in stacks])
    found = client.own_images(on_event=Watcher())
    if as_json:
        render.as_json([listed_image_shape(listed) for listed in found])
    elif found:
        render.say("images of your own:")
        show_own(found)
    elif own:
        render.say("no image of your own: cloudrun images bake makes one")


@click.command(
    cls=Verb, examples=("cloudrun images show cuda8-theano", "cloudrun images show ./mine.toml --json")
)
@click.argument("stack")
@json_option
def show(stack: str, as_json: bool) -> None:
    """Show all that a stack pins, and where the facts come from.

    STACK is one of `cloudrun images list`, or a TOML file of your own.
    """
    client = open_client()
    found = client.stack(stack)
    if as_json:
        render.as_json(_stack_shape(client, found))
        return
    render.lines(_show_lines(client, found))


@click.command(
    cls=Verb,
    examples=(
        "cloudrun images check",
        "cloudrun images check cuda12-torch p2.xlarge",
        "cloudrun images check ./mine.toml --json",
    ),
)
@click.argument("stack", required=False, default="")
@click.argument("type", required=False, default="")
@json_option
def check(stack: str, type: str, as_json: bool) -> None:
    """Say whether a stack and a machine go together.

    Without TYPE: beside every kind of GPU; without STACK too: every stack. Ends with 2, and the one change
    that would mend it, when the stack does not go with TYPE, or with no GPU at all.
    """
    client = open_client()
    stacks = [client.stack(stack)] if stack else client.stacks()
    verdicts = [verdict for each in stacks for verdict in client.check_stack(each, type)]
    if as_json:
        render.as_json([_verdict_shape(verdict) for verdict in verdicts])
    elif stack:
        render.table(CHECK, [_check_row(verdict) for verdict in verdicts])
    else:
        _show_all(verdicts)
    if stack and all(verdict.fault for verdict in verdicts):
        raise _refusal(verdicts)


def _refusal(verdicts: Sequence[Verdict]) -> Refused:
    """What a whole stack's refusals have in common is what the last, the newest GPU, says."""
    fault = verdicts[-1].fault
    assert fault is not None  # noqa: S101  # the caller has looked
    return Refused(fault.reason, hint=fault.fix or "take another type: cloudrun offers")


def _show_all(verdicts: Sequence[Verdict]) -> None:
    """One row a GPU, one column a stack; stacks that leave every GPU alone are told below."""
    runs = {(verdict.stack, verdict.gpu): not verdict.fault for verdict in verdicts}
    names = list(dict.fromkeys(verdict.stack for verdict in verdicts))
    gpus = list(dict.fromkeys((verdict.gpu, verdict.capability) for verdict in verdicts if verdict.gpu))
    anywhere = [name for name in names if runs[name, ""]]
    shown = [name for name in names if name not in anywhere]
    columns = (Column("GPU", 0), Column("CAP", 1, right=True), *(Column(name, 0, least=9) for name in shown))
    rows = [
        (gpu, f"{capability:.1f}", *(YES if runs[name, gpu] else NO for name in shown))
        for gpu, capability in gpus
    ]
    render.table(columns, rows)
    render.say(f"on any machine, with or without a GPU: {', '.join(anywhere)}")


def _check_row(verdict: Verdict) -> tuple[str, ...]:
    capability = "" if verdict.capability is None else f"{verdict.capability:.1f}"
    why_not = str(verdict.fault or "")
    return (verdict.gpu or "none", capability, verdict.type, NO if verdict.fault else YES, why_not)


def _list_row(client: Client, stack: Stack) -> tuple[str, ...]:
    images = ", ".join(dict.fromkeys(key for _provider, key in stack.images))
    return (stack.name, stack.description, _span(client, stack), images)


def _span(client: Client, stack: Stack) -> str:
    """`K80 to A10`: the oldest and the newest kind of GPU that it drives."""
    if not stack.needs_gpu:
        return "not needed"
    names = [verdict.gpu for verdict in client.check_stack(stack) if verdict.gpu and not verdict.fault]
    return f"{names[0]} to {names[-1]}" if names else "none"


def _show_lines(client: Client, stack: Stack) -> list[str]:
    pins = ("os", "driver", "cuda", "cudnn", "python")
    tables = ("frameworks", "pip", "wheels", "sha256", "packages", "theanorc", "env", "tuning", "images")
    lists = [("apt from", stack.repositories), ("steps", stack.steps)]
    lines = [
        field("stack", stack.name),
        field("what", stack.description),
        field("gpus", _span(client, stack)),
        *(field(name, getattr(stack, name) or "as the machine has it") for name in pins),
        *(
            field(name if first else "", f"{key} {value}")
            for name in tables
            for first, (key, value) in ((i == 0, pair) for i, pair in enumerate(getattr(stack, name)))
        ),
        *_lock_lines(stack),
        *(field(label, ", ".join(names)) for label, names in lists if names),
        field("hash", _hash(stack)),
        field("source", visible_lines(stack.source).replace("\n", " ").strip()),
    ]
    return [*lines, *(field("fault", str(fault)) for fault in client.stack_faults(stack))]


def _lock_lines(stack: Stack) -> list[str]:
    """Versions alone: nobody reads two dozen hashes."""
    pins = ", ".join(f"{name} {version}" for name, version, _hexes in stack.lock)
    return [field("lock", f"{len(stack.lock)} packages, each by its sha256: {pins}")] if pins else []


def _hash(stack: Stack) -> str:
    from cloudrun.stacks import stack_hash

    return stack_hash(stack)[:HASH_DIGITS]


def _stack_shape(client: Client, stack: Stack) -> dict[str, Any]:
    tables = ("frameworks", "pip", "wheels", "sha256", "packages", "theanorc", "env", "tuning", "images")
    drives = [verdict.gpu for verdict in client.check_stack(stack) if verdict.gpu and not verdict.fault]
    return {
        **asdict(stack),
        **{name: dict(getattr(stack, name)) for name in tables},
        "lock": {name: {"version": version, "sha256": hexes} for name, version, hexes in stack.lock},
        "hash": _hash(stack),
        "drives": drives,
        "faults": [asdict(fault) for fault in client.stack_faults(stack)],
    }


def _verdict_shape(verdict: Verdict) -> dict[str, Any]:
    return {
        "stack": verdict.stack,
        "provider": verdict.provider,
        "type": verdict.type,
        "gpu": verdict.gpu,
        "gpu_capability": verdict.capability,
        "runs": verdict.fault is None,
        "why_not": verdict.fault.reason if verdict.fault else "",
        "fix": verdict.fault.fix if verdict.fault else "",
    }
