"""Datasets to a machine: what is missing there travels by content, or the machine fetches it itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cloudrun import datasets, datasets_bucket, keptdata
from cloudrun.bucket import cloud_of, open_bucket
from cloudrun.bundle import content_of
from cloudrun.config import Settings
from cloudrun.errors import CloudrunError, ConnectFailed, ConnectionLost, NotFound, TransferFailed
from cloudrun.models import DataInput, Machine, Market
from cloudrun.remote import datalink, transfer
from cloudrun.remote.shell import Shell

if TYPE_CHECKING:
    from cloudrun.providers.base import Bucket

SIGNED_S = 12 * 3600.0  # for terabytes on a slow line; the addresses are not kept on the machine


def lay_out(shell: Shell, key: str, mounts: Sequence[tuple[str, str]], send: Callable[[], None]) -> str:
    """The folder that the run `key` gets as CLOUDRUN_DATA_DIR, of name and digest each (blocking).

    Where all is there this is one command. `send` brings what is missing, and once more what the machine
    found damaged and forgot. Raises as datalink.place and `send`.
    """
    for _ in range(2):
        try:
            return datalink.place(shell, key, mounts)
        except TransferFailed:
            send()
    return datalink.place(shell, key, mounts)


def push(
    settings: Settings, shell: Shell, digest: str, *, progress: transfer.Progress | None = None
) -> transfer.PushResult:
    """Bring what the machine lacks of a dataset (blocking). Idempotent; a cut push goes on where it stopped.

    Raises NotFound where it is not kept at home any more, TransferFailed, ConnectionLost.
    """
    tree = datasets.load_tree(settings, digest)
    content = content_of(keptdata.objects_dir(settings))
    return transfer.push_bundle(shell, tree, content, progress=progress, again=keptdata.ADD_AGAIN)


def bring(
    settings: Settings,
    shell: Shell,
    machine: Machine,
    digest: str,
    *,
    authority: str = "",
    note: Callable[[str], None],
    progress: transfer.Progress | None = None,
) -> Bucket | None:
    """Bring what the machine lacks of a dataset (blocking): a rented one fetches it from a bucket that holds
    it, which is returned, its own cloud's first; to others, and where no bucket gives it, it is sent from
    here. Idempotent.

    note: hears why a bucket did not do. Raises as `push`.
    """
    for address in [] if machine.market is Market.OWN else places(settings, machine.provider, digest):
        try:
            bucket = open_bucket(address, settings)
            gather(settings, shell, digest, bucket, authority=authority, progress=progress)
            return bucket
        except (ConnectionLost, ConnectFailed):
            raise
        except CloudrunError as error:
            note(f"the data is sent from here, not fetched from {address}: {error.message}")
    push(settings, shell, digest, progress=progress)
    return None


def gather(
    settings: Settings,
    shell: Shell,
    digest: str,
    bucket: Bucket,
    *,
    authority: str = "",
    progress: transfer.Progress | None = None,
) -> None:
    """Have the machine fetch what it lacks of a dataset from a bucket, at addresses that are signed here
    (blocking). Raises NotFound where it is not there, TransferFailed, ConnectionLost, and as base.Bucket."""

    def find() -> datalink.Addresses:
        pieces = datasets_bucket.read_pieces(bucket, digest)
        if pieces is None:
            hint = "cloudrun data upload --to puts it there again"
            raise NotFound(f"{bucket.url} does not hold the data {digest[:12]}", hint=hint)
        return datalink.Addresses(
            {sha256: (piece.pack, piece.offset) for sha256, piece in pieces.items()},
            datasets_bucket.addresses(bucket, pieces, lives_s=SIGNED_S),
        )

    tree = datasets.load_tree(settings, digest)
    datalink.gather(shell, tree, find, authority=authority, progress=progress)


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


def places(settings: Settings, provider: str, digest: str) -> list[str]:
    """The buckets from which a machine of that provider fetches a dataset, in the order in which it tries."""
    found = keptdata.places_of(settings).get(digest, [])
    return sorted(found, key=lambda address: cloud_of(address) != provider)
