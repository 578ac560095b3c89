"""Data of runs on a machine: laid out from content that was pushed, or fetched there from an address.

Both are verbs of a file beside the agent, agent/datasets.py. All blocking, all safe to repeat.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from cloudrun.errors import TransferFailed
from cloudrun.remote import agentlink
from cloudrun.remote.shell import Shell
from cloudrun.remote.transfer import Progress

PART = "datasets"


def place(shell: Shell, key: str, mounts: Sequence[tuple[str, str]]) -> str:
    """Make the folder that the run `key` gets as CLOUDRUN_DATA_DIR, and return its path on the machine.

    mounts: name below it and digest. The rest of what the machine has as data is found there, too.
    Raises TransferFailed for content that is not there (any more): push it again.
    """
    request = {"key": key, "mounts": [list(mount) for mount in mounts]}
    with agentlink.open_verb(shell, "place", prologue=agentlink.pack(request), part=PART) as link:
        return str(link.read_json()["path"])


def fetch(
    shell: Shell,
    *,
    digest: str,
    url: str,
    sha256: str,
    name: str,
    extract: bool,
    progress: Progress | None = None,
) -> None:
    """Have the machine download what the address gives, on its own line; cut, it goes on when called again.

    name: of the file; with extract it is unpacked instead. Raises TransferFailed with the machine's reason:
    the address does not answer, the checksum is another, the archive is damaged or hostile.
    """
    request = {"digest": digest, "url": url, "sha256": sha256, "name": name, "extract": extract}
    with agentlink.open_verb(shell, "fetch", prologue=agentlink.pack(request), part=PART) as link:
        while True:
            kind, payload = link.read_frame()
            if kind != b"P":
                return
            done, total = _two_numbers(payload)
            if progress is not None:
                progress(done, max(done, total))


def _two_numbers(payload: bytes) -> tuple[int, int]:
    try:
        done, total = json.loads(payload)
        return int(done), int(total)
    except (ValueError, TypeError, RecursionError) as error:
        raise TransferFailed("the machine's progress cannot be read", hint="try again") from error
