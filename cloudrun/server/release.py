"""Switching a local machine off: from outside by its provider, from inside by its guard."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime

from cloudrun.server import processes
from cloudrun.server.folder import MachineFolder


def switch_off(folder: MachineFolder) -> None:
    """End all its processes and keep the folder, its disk. Idempotent; blocks for seconds at most.

    Called on the machine itself, it spares the caller and the guard above it, which end by themselves.
    """
    with folder.power():
        record = folder.machine()
        if record and not record.stopped:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            folder.save_machine(replace(record, stopped=True, ended_at=now))
        processes.end_all(folder.path, spare=processes.ancestors(os.getpid()))
