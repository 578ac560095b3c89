"""submit: plan, show the plan, ask, walk the road, and tell how it ended."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import JobVerb
from cloudrun.cli.options import (
    complete_machine,
    confirm,
    dry_run_option,
    json_option,
    market_option,
    open_client,
    read_secrets,
    to_pairs,
    to_usd,
    yes_option,
)
from cloudrun.cli.plan_view import plan_lines, price
from cloudrun.cli.rent_options import rent_options, take_rent_options
from cloudrun.cli.shapes import plan_shape
from cloudrun.cli.text import money
from cloudrun.cli.walk import walk
from cloudrun.client import Client
from cloudrun.models import Plan


@click.command(
    cls=JobVerb,
    examples=(
        "cloudrun submit jobs/svhn_rcnn --preset quick",
        "cloudrun submit jobs/svhn_rcnn --spot p2.xlarge --dry-run",
        "cloudrun submit jobs/transfer_learning --data horses --preset smoke",
        "cloudrun submit hello --on bench --detach -- --epochs 3",
        "cloudrun submit hello p3.2xlarge --max-hours 4 --budget 5 -y",
    ),
)
@click.argument("job", type=click.Path())
@click.argument("type", required=False, default="")
@market_option
@click.option(
    "--on",
    default="",
    metavar="NAME",
    shell_complete=complete_machine,
    help="Use this machine, a type, or `local`.",
)
@click.option("--preset", default="", metavar="NAME", help="Arguments and limits by name, from job.toml.")
@click.option("--stack", default="", metavar="NAME", help="One of the stacks that the job accepts.")
@click.option("--max-hours", type=float, help="End the job after this long; the machine enforces it.")
@click.option("--budget", "budget_usd", callback=to_usd, metavar="USD", help="Spend at most this.")
@rent_options
@click.option("--keep", is_flag=True, help="Keep the machine after the run: you end it, or its --budget.")
@click.option(
    "--env", callback=to_pairs, multiple=True, metavar="K=V", help="A variable for the job. Repeatable."
)
@click.option(
    "--secret",
    "secret_names",
    multiple=True,
    metavar="NAME",
    help="A variable whose value is taken from here and never stored.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="NAME[:VERSION][:MOUNT]",
    help="Give it a dataset, or with RUN:PATH another run's outputs. Repeatable.",
)
@click.option(
    "--outputs", "outputs_to", default="", metavar="URL", help="Also store outputs at s3:// or az://."
)
@click.option("--allow-secrets", is_flag=True, help="Send keys and .env files found in the folder.")
@click.option("-d", "--detach", is_flag=True, help="Return when it is recorded; a supervisor walks on.")
@dry_run_option
@yes_option
@json_option
@click.pass_context
def submit(ctx: click.Context, /, job: str, secret_names: tuple[str, ...], detach: bool, dry_run: bool,
           yes: bool, as_json: bool, **asked: Any) -> int:  # fmt: skip
    """Run a job and bring its outputs home.

    JOB is a folder with a job.toml, or the name of a bundled job. TYPE rents a machine of that type
    for this run alone. Without TYPE and --on the one machine that is up is used, else this
    computer. Words after -- go to the job's command.
    """
    secrets = read_secrets(secret_names)
    client = open_client()
    if not dry_run:
        client.warm_up(asked["on"] or "")
    plan = client.plan(job, args=ctx.meta["rest"], **take_rent_options(asked))
    if dry_run:
        _show_dry(client, plan, as_json=as_json)
        return 0
    render_plan(client, plan)
    _confirm(client, plan, yes=yes)
    return walk(
        client,
        lambda watcher: client.submit(plan, detach=detach, secrets=secrets, on_event=watcher),
        job=job,
        as_json=as_json,
    )


def _show_dry(client: Client, plan: Plan, *, as_json: bool) -> None:
    if as_json:
        render.as_json(plan_shape(plan))
    else:
        machine = client.machine(plan.machine) if plan.machine else None
        render.lines(plan_lines(plan, machine, now=datetime.now(UTC), full=True))
    render.say("dry run: nothing was spent")


def render_plan(client: Client, plan: Plan) -> None:
    """The plan on stderr, before the question and the road."""
    machine = client.machine(plan.machine) if plan.machine else None
    for line in plan_lines(plan, machine, now=datetime.now(UTC), full=False):
        render.say(line)
    render.say()


def _confirm(client: Client, plan: Plan, *, yes: bool) -> None:
    """Only money is asked for: a machine that nobody bills needs no question."""
    amount, billed = price(plan, client.machine(plan.machine) if plan.machine else None)
    if not billed or amount == Decimal(0):
        return
    most = f", at most {money(plan.worst_case_usd)}" if plan.worst_case_usd is not None else ""
    if plan.keep and not plan.machine and plan.worst_case_usd is None:
        most = ", until you end it"
    confirm(f"Go ahead for {money(amount)} an hour{most}?", yes=yes)
