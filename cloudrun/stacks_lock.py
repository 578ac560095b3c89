"""A stack's lock: every file that pip installs for it, by name, version and sha256.

It stands beside the stack's own file in pip's requirements format, as pip-compile and uv write it too. So
what a framework stands on, two dozen packages for a torch with its CUDA libraries, is the same a year later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudrun.errors import JobError

Locked = tuple[str, str, str]  # name, version, hex digests with commas

# It travels as words of a command line, of which Linux takes 131,072 bytes each (execve(2)).
MAX_BYTES = 100_000
# The minor version of glibc 2 in each Ubuntu (packages.ubuntu.com, libc6): which manylinux wheels run there.
GLIBC = {"ubuntu-16.04": 23, "ubuntu-18.04": 27, "ubuntu-20.04": 31, "ubuntu-22.04": 35, "ubuntu-24.04": 39}
OLD_TAGS = ("manylinux2014", "manylinux2010", "manylinux1", "linux")  # of before PEP 600
ANEW = "python -m cloudrun.cli.stack_lock STACK.toml PYTHON writes it anew"

_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+_!-]*)"
    r"(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)"
)
_COMMENT = re.compile(r"(^|\s)#.*")


def plain_name(name: str) -> str:
    """As indexes compare names (PEP 503)."""
    return re.sub("[-_.]+", "-", name).lower()


def read_lock(path: Path) -> tuple[Locked, ...]:
    """Raises JobError, with the line, for anything but `NAME==VERSION --hash=sha256:HEX ...`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read: {error}", hint=ANEW) from error
    if len(text) > MAX_BYTES:
        raise JobError(f"{path}: {len(text):,} characters; {MAX_BYTES:,} is the most", hint=ANEW)
    found: dict[str, Locked] = {}
    for number, line in _requirements(text):
        said = _LINE.fullmatch(line)
        if not said:
            raise JobError(f"{path}, line {number}: not NAME==VERSION with its --hash=sha256:", hint=ANEW)
        if plain_name(said["name"]) in found:
            raise JobError(f"{path}, line {number}: {said['name']} stands there twice", hint=ANEW)
        hexes = ",".join(each.rpartition(":")[2] for each in said["hashes"].split())
        found[plain_name(said["name"])] = (said["name"], said["version"], hexes)
    return tuple(found.values())


def _requirements(text: str) -> Iterator[tuple[int, str]]:
    """Each with its first line's number, continued lines put together."""
    start, words = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        content = _COMMENT.sub("", line).rstrip()
        start = start if words else number
        words += content.removesuffix("\\").split()
        if content.endswith("\\"):
            continue
        if words:
            yield start, " ".join(words)
        words = []
    if words:
        yield start, " ".join(words)


def platform_tags(system: str) -> tuple[str, ...]:
    """What pip calls the wheels that run on that Ubuntu on x86_64. Raises JobError for an unknown one."""
    if system not in GLIBC:
        raise JobError(f"no version of glibc is known for {system!r}", hint=f"os = one of {', '.join(GLIBC)}")
    versions = [f"manylinux_2_{minor}" for minor in range(GLIBC[system], 4, -1)]  # 2.5 is the oldest, PEP 600
    return tuple(f"{tag}_x86_64" for tag in (*versions, *OLD_TAGS))


def lock_text(head: str, report: Mapping[str, Any]) -> str:
    """The lock that a report of pip (its `--report`, version 1) amounts to. `head`: a comment."""
    rows = [_row(each) for each in report["install"]]
    return "".join([f"# {head}\n", *(row for _name, row in sorted(rows))])


def _row(item: Mapping[str, Any]) -> tuple[str, str]:
    name = plain_name(item["metadata"]["name"])
    digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    if not digest:
        raise JobError(f"pip gives no sha256 of {name}", hint="a folder or a repository cannot be locked")
    return name, f"{name}=={item['metadata']['version']} \\\n    --hash=sha256:{digest}\n"


def pip_words(pins: Iterable[tuple[str, str]], wheels: Mapping[str, str]) -> list[str]:
    """What a stack asks pip for, as words of its command line."""
    return [
        f"{name} @ {wheels[name]}" if name in wheels else f"{name}=={pin}" if pin else name
        for name, pin in pins
    ]
