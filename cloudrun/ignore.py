"""Which paths of a job folder stay at home, by the rules of gitignore, and which line says so.

The rules are read as git reads them (a differential test holds them to `git check-ignore`):
the last matching line of the deepest file decides, `!` takes a path back in, and nothing below
an ignored folder can be taken back. One difference is meant: `?` and `[...]` stand for one
character, where git takes one byte of it. Translating them here, and not with a library, keeps the
two things that we need: the line to show, and matching of one entry at a time on the way down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

OWN_FILE = ".cloudrunignore"
GIT_FILE = ".gitignore"
ALWAYS = frozenset({".git", "__pycache__", ".venv", ".cloudrun"})  # never code of the job

_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": " \\t", "digit": "0-9", "lower": "a-z",
    "punct": "!-/:-@\\[-`{-~", "space": "\\s", "upper": "A-Z", "xdigit": "0-9a-fA-F",
}  # fmt: skip


class IgnoreFile:
    """One ignore file: what its lines say about the paths below its folder."""

    def __init__(self, text: str, label: str, base: str) -> None:
        """label is the file's path as it is shown; base is its folder: "" or "sub/folder/"."""
        self._base = len(base)
        self._rules: list[tuple[re.Pattern[str], bool, bool, bool, str]] = []
        for number, line in enumerate(text.split("\n"), start=1):
            rule = _translate(line)
            if rule:
                regex, ignores, dir_only, by_name = rule
                shown = f"{label}:{number} {line.strip()}"
                self._rules.append((re.compile(regex, re.DOTALL), ignores, dir_only, by_name, shown))
        self._rules.reverse()  # the last line that matches decides
        names = "|".join(regex.pattern for regex, _, _, by_name, _ in self._rules if by_name)
        paths = "|".join(regex.pattern for regex, _, _, by_name, _ in self._rules if not by_name)
        self._any_name = re.compile(names, re.DOTALL) if names else None
        self._any_path = re.compile(paths, re.DOTALL) if paths else None

    def decide(self, path: str, name: str, is_dir: bool) -> str | None:
        """The rule that ignores the path, "" where one takes it back in, None where none speaks."""
        below = path[self._base :]
        if not (self._any_name and self._any_name.fullmatch(name)) and not (
            self._any_path and self._any_path.fullmatch(below)
        ):
            return None
        for regex, ignores, dir_only, by_name, shown in self._rules:
            if (is_dir or not dir_only) and regex.fullmatch(name if by_name else below):
                return shown if ignores else ""
        return None


def ignore_file_name(root: Path) -> str:
    """The name of the ignore files that count in this tree: ours where the root has one, else git's."""
    return OWN_FILE if (root / OWN_FILE).is_file() else GIT_FILE


def builtin_rule(path: str, name: str, outputs: str) -> str:
    """The built-in rule that leaves a path behind, "" for none."""
    if name in ALWAYS:
        return f"built-in: {name}"
    return "built-in: the outputs folder" if path == outputs else ""


def matching_rule(files: Sequence[IgnoreFile], path: str, name: str, is_dir: bool) -> str:
    """The rule that ignores the path, "" for none. files: the ignore files above it, outermost first."""
    for file in reversed(files):
        rule = file.decide(path, name, is_dir)
        if rule is not None:
            return rule
    return ""


def _translate(line: str) -> tuple[str, bool, bool, bool] | None:
    """A line as (regular expression, ignores, for folders only, by name alone); None for no rule."""
    pattern = _trim(line)
    if not pattern or pattern.startswith("#"):
        return None
    ignores = not pattern.startswith("!")
    pattern = pattern if ignores else pattern[1:]
    dir_only = pattern.endswith("/")
    pattern = pattern[:-1] if dir_only else pattern
    by_name = "/" not in pattern
    regex = _regex(pattern.removeprefix("/"))
    if not pattern or regex is None:
        return None
    return regex, ignores, dir_only, by_name


def _trim(line: str) -> str:
    """Without its end of line and its trailing spaces, except one that a backslash protects."""
    line = line.removesuffix("\r")
    bare = line.rstrip(" ")
    escaped = (len(bare) - len(bare.rstrip("\\"))) % 2 == 1
    return bare + " " if escaped and len(bare) < len(line) else bare


def _regex(pattern: str) -> str | None:
    """The pattern as a regular expression for a whole path; None for one that git never matches."""
    regex = ""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            stars = len(pattern[at:]) - len(pattern[at:].lstrip("*"))
            text, at = _stars(pattern, at, stars)
            regex += text
        elif char == "[":
            bracket = _bracket(pattern, at)
            if bracket is None:
                return None
            text, at = bracket
            regex += text
        elif char == "\\":
            if at + 1 == len(pattern):
                return None
            regex += re.escape(pattern[at + 1])
            at += 2
        else:
            regex += "[^/]" if char == "?" else re.escape(char)
            at += 1
    return regex


def _stars(pattern: str, at: int, stars: int) -> tuple[str, int]:
    """`**` between slashes crosses folders; every other run of stars stays inside one name.

    git looks at what follows the pattern's plain beginning only, so that `lib**/x`, too, crosses.
    """
    end = at + stars
    after_slash = pattern[at - 1 : at] == "/"
    opens = after_slash or not any(special in pattern[:at] for special in "*?[\\")
    if stars < 2 or not opens:
        return "[^/]*", end
    if pattern[end : end + 1] == "/":
        return "(?:.*/)?", end + 1
    if end == len(pattern):
        return ".+" if after_slash else ".*", end
    return (".*" if pattern.startswith("\\/", end) else "[^/]*"), end


def _bracket(pattern: str, at: int) -> tuple[str, int] | None:
    """A set such as [a-z], [!a] or [[:digit:]] and where it ends; None where it never does."""
    end = at + 1
    negated = pattern[end : end + 1] in ("!", "^")
    end += negated
    members = ""
    first = True
    while first or pattern[end : end + 1] != "]":
        first = False
        member, end = _member(pattern, end)
        if member is None:
            return None
        members += member
        if pattern[end : end + 1] == "-" and pattern[end + 1 : end + 2] not in ("", "]") and len(member) <= 2:
            last, end = _member(pattern, end + 1)
            if last is None or len(last) > 2:
                return None
            members = _range(members, member, last)
    if not members:
        return ("[^/]", end + 1) if negated else ("(?!)", end + 1)
    return (f"(?![/{members}])." if negated else f"(?!/)[{members}]"), end + 1


def _member(pattern: str, at: int) -> tuple[str | None, int]:
    """One member of a set, escaped, and where it ends."""
    char = pattern[at : at + 1]
    if pattern.startswith("[:", at):
        close = pattern.find(":]", at + 2)
        if close > 0:
            return _CLASSES.get(pattern[at + 2 : close]), close + 2
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    return (_escape(char), at + 1) if char else (None, at)


def _range(members: str, first: str, last: str) -> str:
    """members with its last one widened to a range; one that runs backwards holds nothing more."""
    if ord(first[-1]) > ord(last[-1]):
        return members
    return f"{members}-{last}"


def _escape(char: str) -> str:
    return f"\\{char}" if char in "\\]^-[&~|" else char
