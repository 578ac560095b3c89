"""Datasets to a machine: what is missing there travels by content, or the machine fetches it itself."""

from __future__ import annotations

from cloudrun import datasets, keptdata
from cloudrun.bundle import content_of
from cloudrun.config import Settings
from cloudrun.models import DataInput
from cloudrun.remote import datalink, transfer
from cloudrun.remote.shell import Shell


def push(
    settings: Settings, shell: Shell, digest: str, *, progress: transfer.Progress | None = None
) -> transfer.PushResult:
    """Bring what the machine lacks of a dataset (blocking). Idempotent; a cut push goes on where it stopped.

    Raises NotFound where it is not kept at home any more, TransferFailed, ConnectionLost.
    """
    tree = datasets.load_tree(settings, digest)
    content = content_of(keptdata.objects_dir(settings))
    return transfer.push_bundle(shell, tree, content, progress=progress)


def fetch(shell: Shell, data: DataInput, *, progress: transfer.Progress | None = None) -> None:
    """Have the machine fetch a dataset by its address (blocking). Raises TransferFailed, ConnectionLost."""
    datalink.fetch(
        shell,
        digest=data.digest,
        url=data.url,
        sha256=data.sha256,
        name=datasets.file_name(data.url),
        extract=data.extract,
        progress=progress,
    )
