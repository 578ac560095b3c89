"""The documents are part of the product: links resolve, commands exist, the tables match the code."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cloudrun import errors
from cloudrun.config import Settings
from cloudrun.models import RunState, Stage

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = ROOT / "docs" / "architecture.md"

# Marks of unfinished work, and words of the place where this was written.
BANNED = re.compile(r"TODO|FIXME|\bXXX\b|\bissue [#\d]")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OUR_FILE = re.compile(r"(?:cloudrun|jobs|docs|tests|benchmarks|images|provisioning)/[a-z0-9_./-]+")


def tracked(pattern: str) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted({path for line in done.stdout.splitlines() if (path := ROOT / line).is_file()})


DOCUMENTS = tracked("*.md")


def in_document(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


@in_document(DOCUMENTS)
def test_links_resolve(path: Path) -> None:
    broken = [link for link in LINK.findall(prose(path)) if not resolves(path, link)]
    assert broken == []


@in_document(DOCUMENTS)
def test_commands_parse(path: Path) -> None:
    app = command_line()
    wrong = [f"{line}: {why}" for line in commands(path, "cloudrun") if (why := why_not(app, line))]
    assert wrong == []


@in_document(DOCUMENTS)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in commands(path, "make") for word in line.split()[1:2] if word.isalpha()}
    assert named - targets == set()


@in_document(DOCUMENTS)
def test_files_named_in_backticks_exist(path: Path) -> None:
    named = [text for text in re.findall(r"`([^`\n]+)`", prose(path)) if OUR_FILE.fullmatch(text)]
    assert [text for text in named if not (ROOT / text).exists() and not (path.parent / text).exists()] == []


def test_no_unfinished_or_foreign_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked("*")
        if path.suffix != ".csv" and path != Path(__file__)  # facts that quote their sources; the list itself
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if BANNED.search(line)
    ]
    assert found == []


def test_architecture_names_every_stage_state_and_setting() -> None:
    text = ARCHITECTURE.read_text()
    settings = {f"CLOUDRUN_{field.name.upper()}" for field in fields(Settings)} - {
        "CLOUDRUN_RATES",
        "CLOUDRUN_BUDGETS",
    }
    wanted = {stage.value for stage in Stage} | {state.value for state in RunState} | settings
    assert sorted(word for word in wanted if f"`{word}`" not in text) == []


def test_architecture_gives_every_exit_code() -> None:
    section = ARCHITECTURE.read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == codes | {0}


def test_the_checks_find_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[x](gone.md) [y](#gone) [z](page.md#here)\n# Here\n```\ncloudrun submit --nonsense\n```\n"
    )
    assert [link for link in LINK.findall(prose(page)) if not resolves(page, link)] == ["gone.md", "#gone"]
    assert [why_not(command_line(), line) for line in commands(page, "cloudrun")] != [""]
    assert why_not(command_line(), "cloudrun nonsense") != ""
    assert why_not(command_line(), "cloudrun status --json") == ""


def prose(path: Path) -> str:
    return BLOCK.sub("", path.read_text())


def resolves(page: Path, link: str) -> bool:
    """True for a link that leads somewhere here; the outside world is not asked."""
    if re.match(r"[a-z]+:", link):
        return True
    name, _, anchor = link.partition("#")
    target = (page.parent / name) if name else page
    if not anchor or target.suffix != ".md":
        return target.exists()
    return target.exists() and anchor in anchors(target)


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(path: Path, program: str) -> Iterator[str]:
    """Command lines of one program: lines of code blocks, and code within a sentence."""
    text = path.read_text()
    lines = [
        line
        for language, body in BLOCK.findall(text)
        if language in ("", "sh", "console")
        for line in body.splitlines()
    ]
    for line in [*lines, *re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))]:
        command = line.removeprefix("$ ").partition("  #")[0].strip()
        for part in re.split(r"\s(?:&&|\||>)\s|;\s", command):
            if part.split()[:1] == [program]:
                yield part


def command_line() -> Any:
    from cloudrun.cli import app

    return app


def why_not(command: Any, line: str) -> str:
    """Why the command line would not be understood, "" if it would. Nothing runs."""
    words = [word for word in shlex.split(line)[1:] if word not in ("...", "…")]
    context = None
    try:
        while hasattr(command, "resolve_command") and words and not words[0].startswith("-"):
            context = command.make_context(
                command.name or "cloudrun", [], parent=context, resilient_parsing=True
            )
            _, command, words = command.resolve_command(context, words)
        if not words and (context is None or hasattr(command, "resolve_command")):
            return ""  # the bare command or group, named in a sentence
        if words or not needs_words(command):
            command.make_context(command.name, list(words), parent=context).close()
    except Exception as error:
        if type(error).__name__ in ("Exit", "Abort"):  # --help, --version
            return ""
        return str(getattr(error, "message", "") or error)
    return ""


def needs_words(command: Any) -> bool:
    return any(parameter.required for parameter in command.params)
