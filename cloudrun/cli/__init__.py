"""The command line. Commands parse, call one method of Client and hand the result to render.

Start-up is kept short: this module knows the commands' names and one-line helps, and imports
a noun's file only when one of its commands is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

import cloudrun
from cloudrun.cli.lazy import COMPLETE, Entry, LazyGroup

SECTIONS: dict[str, tuple[Entry, ...]] = {
    "Run a job": (
        Entry("init", "cloudrun.cli.init:init", "Write a new job folder that runs as it is."),
        Entry("submit", "cloudrun.cli.submit:submit", "Run a job and bring its outputs home."),
        Entry("attach", "cloudrun.cli.runs:attach", "Come back to a run and watch it to its end."),
        Entry("cancel", "cloudrun.cli.runs:cancel", "End a run early; what it saved is kept."),
        Entry("restart", "cloudrun.cli.runs:restart", "Run again from the last checkpoint."),
        Entry("clone", "cloudrun.cli.runs:clone", "Write a run's code, as it ran, into a folder."),
    ),
    "Data": (Entry("data", "cloudrun.cli.data:data", "Keep data for runs: folders, and what runs wrote."),),
    "Look": (
        Entry("status", "cloudrun.cli.status:status", "Show runs, or one run in detail."),
        Entry("logs", "cloudrun.cli.runs:logs", "Show what a run printed."),
        Entry("outputs", "cloudrun.cli.outputs:outputs", "List, fetch and open what runs wrote."),
        Entry("offers", "cloudrun.cli.offers:offers", "Show what can be rented, cheapest first."),
    ),
    "Clear up": (
        Entry("clean", "cloudrun.cli.clean:clean", "Get rid of what finished runs left on this computer."),
        Entry("pin", "cloudrun.cli.clean:pin", "Keep a run from every clean-up."),
    ),
    "Money": (Entry("cost", "cloudrun.cli.cost:cost", "Show what was spent, compare prices, read bills."),),
    "Machines": (
        Entry("launch", "cloudrun.cli.launch:launch", "Rent a machine that stays until its guard ends it."),
        Entry("machines", "cloudrun.cli.machines:machines", "Everything about machines."),
        Entry("images", "cloudrun.cli.images:images", "Show stacks, check them before paying, bake them."),
        Entry("ssh", "cloudrun.cli.access:ssh", "Open a terminal on a machine, or run a command there."),
        Entry("start", "cloudrun.cli.machines:start", "Start a stopped machine."),
        Entry("stop", "cloudrun.cli.machines:stop", "Switch a machine off and keep its disk."),
        Entry("terminate", "cloudrun.cli.machines:terminate", "End machines for good."),
        Entry("audit", "cloudrun.cli.audit:audit", "Find what is rented, left over, or billed for nothing."),
        Entry("sim", "cloudrun.cli.sim:sim", "A cloud on this computer to rehearse on."),
    ),
    "Settings": (
        Entry("config", "cloudrun.cli.config:config", "Show the settings, and set a budget for the month."),
    ),
    "Tools": (
        Entry("plot", "cloudrun.cli.plot:plot", "Draw training curves of runs and logs."),
        Entry("notebook", "cloudrun.cli.notebook:notebook", "Make notebooks short enough to print."),
        Entry(
            "model", "cloudrun.cli.model:model", "Show what a job's network takes, and what it would cost."
        ),
    ),
}


def _completion(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None or ctx.resilient_parsing:
        return
    from cloudrun.cli import completion

    completion.run(ctx.command, str(param.name), value)
    ctx.exit()


def _completion_option(flag: str, text: str) -> click.Option:
    return click.Option(
        [flag],
        is_flag=False,
        flag_value="",
        metavar="[SHELL]",
        expose_value=False,
        is_eager=True,
        callback=_completion,
        help=text,
    )


app = LazyGroup(
    "cloudrun",
    sections=SECTIONS,
    help="Rent a GPU, run your job folder on it, bring the results home, and know what it cost.",
    examples=("cloudrun init hello && cloudrun submit hello", "cloudrun status"),
    params=[
        _completion_option("--install-completion", "Install completion for bash, zsh or fish."),
        _completion_option("--show-completion", "Print the completion script."),
    ],
)
app = click.version_option(cloudrun.__version__, prog_name="cloudrun", message="%(prog)s %(version)s")(app)


def main(argv: Sequence[str] | None = None) -> None:
    """The `cloudrun` command: runs it and exits with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code. Prints, and never raises for what can go wrong."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no error
    try:
        code = _invoke(list(argv))
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        from cloudrun.cli import failures

        return failures.report(error, argv)
    return code if isinstance(code, int) else 0


def _invoke(argv: list[str]) -> object:
    """As click's own main, but for errors: those are ours to report."""
    if COMPLETE in os.environ:  # the shell asks what may follow
        return app.main(argv, prog_name="cloudrun", complete_var=COMPLETE)
    try:
        with app.make_context("cloudrun", argv) as context:
            return app.invoke(context)
    except click.exceptions.Exit as leaving:  # --help and --version
        return leaving.exit_code
