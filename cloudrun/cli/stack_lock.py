"""A stack's lock from what pip finds: `python -m cloudrun.cli.stack_lock STACK.toml python3.12`.

The Python is of the stack's version: what a package needs depends on it. Its pip (22.2 or newer) asks the
index that it is set to; it installs nothing, but downloads wheels of which the index gives no metadata.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cloudrun.errors import CloudrunError, JobError
from cloudrun.models import Stack
from cloudrun.stacks import load_unlocked
from cloudrun.stacks_lock import lock_text, pip_words, platform_tags

VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def write_lock(file: Path, python: str) -> Path:
    """Write the lock of the stack in that file beside it. Blocking (minutes for a torch). Raises JobError."""
    stack, lock = load_unlocked(file)
    if (found := _version_of(python)) != stack.python:
        reason = f"{stack.name} is for Python {stack.python}, and {python} is {found or 'none'}"
        raise JobError(reason, hint="name a Python of that version")
    head = f"What pip installs for {stack.name}: Python {stack.python}, {stack.os}, x86_64. By: make locks"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        _ask_pip(stack, python, report)
        text = lock_text(head, json.loads(report.read_text(encoding="utf-8")))
    lock.write_text(text, encoding="utf-8")
    return lock


def _version_of(python: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run(
            [python, "-c", VERSION], capture_output=True, text=True, check=False
        ).stdout.strip()
    return ""


def _ask_pip(stack: Stack, python: str, report: Path) -> None:
    """For the stack's system instead of this one, hence the target, which stays empty."""
    words = ["install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
    platforms = [f"--platform={tag}" for tag in platform_tags(stack.os)]
    pins = pip_words((*stack.frameworks, *stack.pip), dict(stack.wheels))
    into = ["--target", str(report.parent / "none"), "--report", str(report)]
    argv = [python, "-m", "pip", *words, *platforms, *into, *pins]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip()[-500:]
        raise JobError(f"pip finds nothing for {stack.name}: {said}", hint="change its pins")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python -m cloudrun.cli.stack_lock STACK.toml PYTHON")
    try:
        write_lock(Path(sys.argv[1]), sys.argv[2])
    except CloudrunError as error:
        sys.exit(f"{error.message}: {error.hint}")


if __name__ == "__main__":
    main()
