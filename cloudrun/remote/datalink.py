"""Data of runs on a machine: laid out from content that was pushed, or that it fetched itself.

All are verbs of files beside the agent, agent/datasets.py and agent/packs.py. Blocking, and safe to repeat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cloudrun.errors import TransferFailed
from cloudrun.models import Bundle
from cloudrun.remote import agentlink
from cloudrun.remote.shell import Shell
from cloudrun.remote.transfer import Progress

PART, PACKS = "datasets", "packs"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where contents lie: pack and offset by their sha256, and a signed address of each pack."""

    pieces: Mapping[str, tuple[str, int]]
    packs: Mapping[str, str]


def place(shell: Shell, key: str, mounts: Sequence[tuple[str, str]]) -> str:
    """Make the folder that the run `key` gets as CLOUDRUN_DATA_DIR, and return its path on the machine.

    mounts: name below it and digest. The rest of what the machine has as data is found there, too.
    Raises TransferFailed for content that is not there (any more): push it again.
    """
    request = {"key": key, "mounts": [list(mount) for mount in mounts]}
    with agentlink.open_verb(shell, "place", prologue=agentlink.pack(request), part=PART) as link:
        return str(link.read_json()["path"])


def discard(shell: Shell, digests: Sequence[str], *, remove: bool) -> tuple[int, list[str]]:
    """Take datasets off the machine, or without `remove` only say what that would free: bytes, and digests
    that stay since a run there has not ended. No digests: all that runs were given. Idempotent."""
    request = {"digests": list(digests), "remove": remove}
    answer = agentlink.call(shell, "discard", request, part=PART)
    return int(answer["bytes"]), [str(digest) for digest in answer["used"]]


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
        _follow(link, progress)


def gather(
    shell: Shell,
    tree: Bundle,
    find: Callable[[], Addresses],
    *,
    authority: str = "",
    progress: Progress | None = None,
) -> None:
    """Have the machine fetch what it lacks of a dataset from a bucket; cut, it goes on when called again.

    find: where the content lies; asked only where something may be missing. authority: a certificate (PEM) to
    trust beside the machine's own. Raises TransferFailed with the machine's reason.
    """
    request = agentlink.pack({"digest": tree.digest})
    with agentlink.open_verb(shell, "gather", prologue=request, part=PACKS) as link:
        if link.read_json()["have"]:
            return
        found = find()
        rows = [[file.path, file.size, file.mode, file.sha256, file.link] for file in tree.files]
        asked = {"files": rows, "pieces": found.pieces, "addresses": found.packs, "authority": authority}
        link.write(agentlink.pack(asked))
        _follow(link, progress)


def _follow(link: agentlink.Link, progress: Progress | None) -> None:
    """Pass progress on until the verb has answered."""
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
