"""Every command explains itself, gives an example that parses, and stands in docs/cli.md."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from commandline import Cli

from cloudrun.cli import app
from cloudrun.cli.lazy import LazyGroup
from cloudrun.cli.reference import reference, walk

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
CONTEXTS = list(walk(app, "cloudrun", None))
VERBS = [context for context in CONTEXTS if not isinstance(context.command, LazyGroup)]
# From the agreed command line; a name that goes breaks somebody's script.
WANTED = """init launch submit status logs attach cancel restart clone ssh start stop terminate offers
machines list|machines start|machines stop|machines terminate|machines ssh|machines exec|machines tunnel
machines extend|machines attach|machines adopt|outputs list|outputs get|outputs pull|outputs push|outputs open
data init|data upload|data list|data files|data get|data delete|data add
images list|images show|images check|images bake|images delete
audit|clean|pin|cost report|cost compare|cost import|config show|config budget"""


def every(contexts: list[click.Context]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("context", contexts, ids=lambda context: context.command_path)


def test_all_agreed_commands_exist() -> None:
    lines = WANTED.splitlines()
    names = lines[0].split() + "|".join(lines[1:]).split("|")
    assert {f"cloudrun {name}" for name in names} <= {context.command_path for context in CONTEXTS}


@every(CONTEXTS)
def test_help_says_what_it_does_and_gives_an_example(context: click.Context) -> None:
    text = context.command.get_help(context)
    assert "Example" in text
    assert context.command.help, "no help text"
    assert all(param.help for param in context.command.params if isinstance(param, click.Option))


@every(CONTEXTS)
def test_the_groups_line_is_the_first_of_the_help(context: click.Context) -> None:
    parent = context.parent.command if context.parent else None
    if isinstance(parent, LazyGroup):
        assert parent.entries[context.info_name or ""].help == (context.command.help or "").partition("\n")[0]


@every(CONTEXTS)
def test_examples_parse(context: click.Context) -> None:
    for example in context.command.examples:  # type: ignore[attr-defined]
        for words in command_lines(example):
            parse(words)


@pytest.mark.parametrize(
    "line",
    [
        "launch --spot p2.xlarge",
        "launch p2.xlarge --spot",
        "submit jobs/svhn_rcnn --spot p2.xlarge --dry-run",
        "submit jobs/svhn_rcnn",
        "submit jobs/svhn_rcnn -- --lr 0.1 -- more",
    ],
)
def test_both_lines_of_the_mission_parse(line: str) -> None:
    parse(line.split())


def test_words_behind_the_dashes_are_the_jobs() -> None:
    context = parse(["submit", "tiny", "p2.xlarge", "--spot", "--", "--lr", "0.1", "--json", "--", "x"])
    assert context.meta["rest"] == ("--lr", "0.1", "--json", "--", "x")
    assert (context.params["type"], context.params["as_json"], context.params["market"].value) == (
        "p2.xlarge",
        False,
        "spot",
    )


@every([c for c in VERBS if c.info_name in ("list", "status", "offers")])
def test_listings_have_json(context: click.Context) -> None:
    assert "--json" in {flag for param in context.command.params for flag in param.opts}


@every([c for c in VERBS if c.info_name in ("terminate", "stop", "cancel")])
def test_what_destroys_can_be_looked_at_first(context: click.Context) -> None:
    assert {"--yes", "--dry-run"} <= {flag for param in context.command.params for flag in param.opts}


@every([c for c in VERBS if c.command.callback is not None])
def test_commands_are_short(context: click.Context) -> None:
    """Parse, call one method, hand the result to render: under 25 lines of body."""
    source = inspect.getsource(inspect.unwrap(context.command.callback))  # type: ignore[arg-type]
    body = source.partition('"""')[2].partition('"""')[2]
    assert len(body.strip().splitlines()) < 25


def test_the_reference_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == reference(), "run: python -m cloudrun.cli.reference docs/cli.md"


def test_no_words_means_help(cli: Cli) -> None:
    assert cli().out == cli("--help").out
    assert cli("machines").out == cli("machines", "--help").out
    assert "Machines:" in cli("-h").out


def test_a_mistyped_command_is_guessed(cli: Cli) -> None:
    said = cli("sumbit", "x")
    assert (said.code, said.out) == (2, "")
    assert "Did you mean: submit?" in said.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    shown = cli("--show-completion", shell)
    assert "_CLOUDRUN_COMPLETE" in shown.out
    installed = cli("--install-completion", shell)
    assert Path(installed.out.strip()).read_text() == shown.out
    assert Path(installed.out.strip()).is_relative_to(tmp_path)


def test_completion_for_an_unknown_shell(cli: Cli) -> None:
    assert cli("--show-completion", "tcsh").code == 2


def parse(words: list[str]) -> click.Context:
    """The context of the last command of the line; raises as click does."""
    command: click.Command = app
    context = click.Context(app, info_name="cloudrun", **app.context_settings)
    while isinstance(command, LazyGroup):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = (
            context if isinstance(found, LazyGroup) else found.make_context(found.name, words, parent=context)
        )
    return context


def command_lines(example: str) -> Iterator[list[str]]:
    """The words behind each `cloudrun` of a shell line, up to the next pipe, && or redirection."""
    lexer = shlex.shlex(example, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, "|"]:
        if word in ("|", "&&", ">"):
            if "cloudrun" in words:
                yield words[words.index("cloudrun") + 1 :]
            words = []
        else:
            words.append(word)
