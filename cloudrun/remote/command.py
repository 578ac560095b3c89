"""How a command line is put for the other side, and what is said when it failed."""

from __future__ import annotations

import shlex

from cloudrun.errors import CommandFailed
from cloudrun.models import Result, SshAddress

STDERR_TAIL_BYTES = 2000


def wrapped(command: str) -> str:
    """The command for /bin/sh, whatever the user's login shell is.

    A second shell stays above it, so that a command that dies by a signal still reports a
    number (128 + the signal's), and only a lost connection reports none.
    """
    return f"""exec /bin/sh -c '/bin/sh -c "$0"; exit $?' {shlex.quote(command)}"""


def checked(result: Result, address: SshAddress) -> Result:
    """The result itself, or CommandFailed with the end of what the command said."""
    if result:
        return result
    said = (result.stderr or result.stdout)[-STDERR_TAIL_BYTES:].decode("utf-8", "replace").strip()
    shown = result.command if len(result.command) <= 200 else result.command[:197] + "..."
    raise CommandFailed(
        f"on {address.host}, exit code {result.exit_code}: {shown}" + (f"\n{said}" if said else ""),
        result=result,
        hint="the lines above are the command's own",
    )
