"""`python -m cloudrun.server`: started by the `local` provider, and by a machine's guard to end it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cloudrun.server.environment import machine_environment
from cloudrun.server.folder import MachineFolder
from cloudrun.server.processes import MACHINE_VARIABLE


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cloudrun.server", description=__doc__)
    verb = parser.add_mutually_exclusive_group(required=True)
    verb.add_argument("--machine", metavar="DIR", type=Path, help="serve the machine in this folder")
    verb.add_argument("--release", metavar="DIR", type=Path, help="switch the machine in this folder off")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="tell this file descriptor when it listens")
    options = parser.parse_args()
    if options.release:
        return _release(MachineFolder(options.release.resolve()))
    return _serve(MachineFolder(options.machine.resolve()), options.ready_fd)


def _serve(folder: MachineFolder, ready_fd: int | None) -> int:
    if os.environ.get(MACHINE_VARIABLE) != str(folder.path):
        _restart_clean(folder)
    from cloudrun.server.daemon import serve

    return serve(folder, ready_fd=ready_fd)


def _release(folder: MachineFolder) -> int:
    from cloudrun.server.release import switch_off

    switch_off(folder)
    return 0


def _restart_clean(folder: MachineFolder) -> None:
    """Started by hand: become the server with the machine's environment instead of the caller's."""
    data_dir = os.environ.get("CLOUDRUN_DATA_DIR") or str(folder.agent_base / "data")
    environment = machine_environment(folder, data_dir=data_dir, caller=os.environ)
    os.execve(sys.executable, [sys.executable, "-m", "cloudrun.server", *sys.argv[1:]], environment)  # noqa: S606  # no shell wanted


if __name__ == "__main__":
    sys.exit(main())
