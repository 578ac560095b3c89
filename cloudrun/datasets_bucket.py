"""Datasets in a bucket: each content once, in packs that machines fetch without us, and a manifest each.

    PREFIX/.cloudrun/data/packs/<sha256>           contents end to end, PACK_BYTES of them or one larger one
    PREFIX/.cloudrun/data/manifests/<digest>.json  where each content of a dataset lies; stored last

Storing may end anywhere and be done again: a pack that is there is not sent again. All blocking, safe with
others who do the same, and all raise as base.Bucket does.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from cloudrun import keptdata
from cloudrun.bucket import read_object
from cloudrun.bundle import object_path
from cloudrun.errors import TransferFailed
from cloudrun.models import Bundle

if TYPE_CHECKING:
    from cloudrun.providers.base import Bucket

PACKS = ".cloudrun/data/packs/"
MANIFESTS = ".cloudrun/data/manifests/"
FORMAT = 1
PACK_BYTES = 32 << 20  # so many small files cost a machine one request; as much lies on our disk a thread
THREADS = 4
GRACE = timedelta(hours=1)  # so long a pack stays that no manifest names: an upload is about to

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a content lies: in which pack, from which byte on."""

    pack: str
    offset: int


Pieces = Mapping[str, Piece]  # by the content's sha256


def store(bucket: Bucket, tree: Bundle, objects_dir: Path, *, progress: Progress) -> int:
    """Bring what the bucket lacks of a dataset, and its manifest; the bytes sent. Idempotent.

    Raises TransferFailed for kept content that is damaged.
    """
    stored = {each.key.removeprefix(PACKS) for each in bucket.list(PACKS)}
    manifests = _read_all(bucket)
    known = {
        sha256: piece
        for pieces in manifests.values()
        for sha256, piece in pieces.items()
        if piece.pack in stored
    }
    sizes = {file.sha256: file.size for file in tree.files if file.size and not file.link}
    missing = [sha256 for sha256 in sizes if sha256 not in known]
    if not missing and tree.digest in manifests:
        return 0
    groups = list(_groups(missing, sizes))
    total, done, sent = sum(sizes[sha256] for sha256 in missing), 0, 0
    with ThreadPoolExecutor(THREADS) as pool:
        packed = pool.map(lambda group: _store_pack(bucket, objects_dir, group, sizes, stored), groups)
        for group, (pack, is_new) in zip(groups, packed, strict=True):
            size = sum(sizes[sha256] for sha256 in group)
            known.update(_laid_out(pack, group, sizes))
            sent += size if is_new else 0
            done += size
            progress(done, total)
    _write_manifest(bucket, tree.digest, {sha256: known[sha256] for sha256 in sizes})
    return sent


def read_pieces(bucket: Bucket, digest: str) -> Pieces | None:
    """Where a dataset's contents lie; None where it is not stored whole. Raises TransferFailed for a manifest
    that cannot be read."""
    content = read_object(bucket, f"{MANIFESTS}{digest}.json")
    if content is None:
        return None
    try:
        said = json.loads(content)
        packs = [str(each) for each in said["packs"]]
        return {
            str(sha256): Piece(packs[int(index)], int(offset))
            for sha256, (index, offset) in said["contents"].items()
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise TransferFailed(
            f"{bucket.url}/{MANIFESTS}{digest}.json cannot be read: {type(error).__name__}",
            hint="delete that object, and store the dataset again: cloudrun data upload --to",
        ) from error


def delete(bucket: Bucket, digest: str) -> int:
    """Take a dataset away, with the packs that no other one needs; the bytes freed. Idempotent."""
    given_up = {piece.pack for piece in (read_pieces(bucket, digest) or {}).values()}
    bucket.delete([f"{MANIFESTS}{digest}.json"])
    needed = {piece.pack for pieces in _read_all(bucket).values() for piece in pieces.values()}
    old = datetime.now(UTC) - GRACE
    going = [
        each
        for each in bucket.list(PACKS)
        if (name := each.key.removeprefix(PACKS)) not in needed
        and (name in given_up or each.modified_at < old)
    ]
    bucket.delete([each.key for each in going])
    return sum(each.size for each in going)


def addresses(bucket: Bucket, pieces: Pieces, *, lives_s: float) -> dict[str, str]:
    """Signed addresses of the packs that hold these pieces, by pack."""
    packs = sorted({piece.pack for piece in pieces.values()})
    return {pack: bucket.sign(f"{PACKS}{pack}", "GET", lives_s) for pack in packs}


def _read_all(bucket: Bucket) -> dict[str, Pieces]:
    """Every manifest in the bucket, by the dataset's digest."""
    digests = [each.key.removeprefix(MANIFESTS).removesuffix(".json") for each in bucket.list(MANIFESTS)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = zip(digests, pool.map(lambda digest: read_pieces(bucket, digest), digests), strict=True)
        return {digest: pieces for digest, pieces in found if pieces is not None}


def _groups(contents: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Contents that share a pack. The same ones make the same packs: a cut upload finds what it stored."""
    held: list[str] = []
    size = 0
    for sha256 in contents:
        if sizes[sha256] >= PACK_BYTES:
            yield [sha256]
            continue
        if size + sizes[sha256] > PACK_BYTES:
            yield held
            held, size = [], 0
        held.append(sha256)
        size += sizes[sha256]
    if held:
        yield held


def _store_pack(
    bucket: Bucket, objects_dir: Path, group: Sequence[str], sizes: Mapping[str, int], stored: Collection[str]
) -> tuple[str, bool]:
    """Put these contents into one object; its name, and whether it had to be sent."""
    if len(group) == 1:
        return group[0], _put_new(bucket, group[0], object_path(objects_dir, group[0]), stored)
    with tempfile.NamedTemporaryFile(prefix="cloudrun-pack-") as file:
        whole = hashlib.sha256()
        for sha256 in group:
            content = object_path(objects_dir, sha256).read_bytes()
            if len(content) != sizes[sha256] or hashlib.sha256(content).hexdigest() != sha256:
                raise TransferFailed(
                    f"the kept content {sha256[:12]} is damaged",
                    hint=keptdata.ADD_AGAIN,
                )
            whole.update(content)
            file.write(content)
        file.flush()
        return whole.hexdigest(), _put_new(bucket, whole.hexdigest(), Path(file.name), stored)


def _put_new(bucket: Bucket, pack: str, path: Path, stored: Collection[str]) -> bool:
    if pack in stored:
        return False
    bucket.put(f"{PACKS}{pack}", path, pack)
    return True


def _laid_out(pack: str, group: Sequence[str], sizes: Mapping[str, int]) -> dict[str, Piece]:
    """Where each content lies in a pack that holds the group end to end."""
    ends = accumulate(sizes[sha256] for sha256 in group)
    return {sha256: Piece(pack, end - sizes[sha256]) for sha256, end in zip(group, ends, strict=True)}


def _write_manifest(bucket: Bucket, digest: str, pieces: Pieces) -> None:
    packs = sorted({piece.pack for piece in pieces.values()})
    index = {pack: number for number, pack in enumerate(packs)}
    contents = {sha256: [index[piece.pack], piece.offset] for sha256, piece in pieces.items()}
    document = {"format": FORMAT, "digest": digest, "packs": packs, "contents": contents}
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    with tempfile.TemporaryDirectory(prefix="cloudrun-") as folder:
        path = Path(folder) / "manifest"
        path.write_bytes(text)
        bucket.put(f"{MANIFESTS}{digest}.json", path, hashlib.sha256(text).hexdigest())
