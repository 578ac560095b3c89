"""Where the logs come from that are to be plotted: runs, files, folders, stdin, the clipboard."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cloudrun.cli.options import open_client
from cloudrun.cli.text import visible
from cloudrun.errors import CloudrunError, NotFound, UsageError

METRICS = ("metrics.jsonl", "metrics.csv", "log")  # what a folder of outputs may hold, best first
MOST_BYTES = 1_000_000_000  # what is larger is no log

Source = tuple[str, str]  # title, text


def open_all(names: Sequence[str], *, paste: bool) -> list[Source]:
    """The text of each, titled; stdin where nothing is named and something is piped in.

    A name is a file, a folder with outputs, `-` for stdin, or a run, in this order. Raises UsageError for
    what cannot be read and NotFound for what is not there.
    """
    found: list[Source] = []
    if paste:
        from cloudrun.cli.clipboard import paste_text

        found.append(("clipboard", paste_text()))
    if not names and not paste and sys.stdin.isatty():
        raise UsageError("nothing to draw", hint="name a run or a log: cloudrun plot last")
    piped = ["-"] if not names and not paste else []
    return found + [_open(name) for name in [*names, *piped]]


def _open(name: str) -> Source:
    if name == "-":
        return "stdin", _decoded(sys.stdin.buffer.read())
    path = Path(name)
    with suppress(OSError, ValueError):  # a name that no file can have is a run's, or nobody's
        if path.is_dir():
            path = _in_folder(path)
        if path.exists():
            return visible(name), _read_file(path)
    return _open_run(name)


def _open_run(name: str) -> Source:
    client = open_client()
    try:
        run = client.run(name)
    except NotFound as error:
        raise NotFound(f"no file and no run {name!r}", hint="cloudrun status lists the runs") from error
    if not run.state.final:
        with suppress(CloudrunError):  # the machine may not answer: what is at home is drawn
            client.pull_outputs(run.id)
    title = " ".join(word for word in (run.job, run.preset, run.id) if word)
    for file in (client.files(run.id).outputs / name for name in METRICS[:2]):
        if file.is_file():
            return title, _read_file(file)
    return title, _decoded(b"".join(client.logs(run.id)))


def _in_folder(folder: Path) -> Path:
    candidates = [place / name for place in (folder, folder / "outputs") for name in METRICS]
    for file in candidates:
        if file.is_file():
            return file
    raise NotFound(f"{folder}: no {' or '.join(METRICS[:2])} in it", hint="name the log itself")


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="check its name and rights") from error
    if len(content) > MOST_BYTES:
        raise UsageError(f"{path} is larger than a log", hint="cut out the part with the epochs")
    return _decoded(content)


def _decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 where it says so (PowerShell's >); bytes that are neither become a mark."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    return content.decode(encoding, errors="replace")
