"""The system's clipboard, where it has one: Wayland, X11, macOS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cloudrun.errors import UsageError

TIMEOUT_S = 20
_HINT = "install wl-clipboard (Wayland) or xclip (X11)"


def copy_png(picture: bytes) -> None:
    """Put a picture on the clipboard. Raises UsageError where there is none."""
    if sys.platform == "darwin":
        _copy_on_mac(picture)
        return
    argv = _program({
        "wl-copy": ("--type", "image/png"),
        "xclip": ("-selection", "clipboard", "-t", "image/png"),
    }, otherwise="write a file with -o curves.png")  # fmt: skip
    _run(argv, picture)


def paste_text() -> str:
    """The text on the clipboard. Raises UsageError where there is none."""
    if sys.platform == "darwin":
        return _decoded(_run(["pbpaste"]))
    argv = _program({
        "wl-paste": ("--no-newline",),
        "xclip": ("-selection", "clipboard", "-o"),
        "xsel": ("--clipboard", "--output"),
    }, otherwise="save the log to a file, or pipe it in: cloudrun plot -")  # fmt: skip
    return _decoded(_run(argv))


def _program(known: dict[str, tuple[str, ...]], *, otherwise: str) -> list[str]:
    """The first of the programs that is installed and has a display to talk to."""
    screens = {"wl-copy": "WAYLAND_DISPLAY", "wl-paste": "WAYLAND_DISPLAY"}
    for name, arguments in known.items():
        path = shutil.which(name)
        if path and os.environ.get(screens.get(name, "DISPLAY")):
            return [path, *arguments]
    raise UsageError("no clipboard here", hint=f"{_HINT}, or {otherwise}")


def _run(argv: list[str], given: bytes | None = None) -> bytes:
    """What it printed; of a copying program nothing, because it stays behind to serve the content."""
    reading = given is None
    try:
        done = subprocess.run(
            argv,
            input=given,
            stdin=subprocess.DEVNULL if reading else None,
            stdout=subprocess.PIPE if reading else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"the clipboard did not answer: {argv[0]}", hint="use a file instead") from error
    return done.stdout or b""


def _copy_on_mac(picture: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "curves.png"
        file.write_bytes(picture)
        _run(["osascript", "-e", f'set the clipboard to (read (POSIX file "{file}") as «class PNGf»)'])


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")
