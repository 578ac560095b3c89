"""A container of Azure Blob Storage as a place for objects, through azure-storage-blob.

The account is found as Azure's own tools find it: AZURE_STORAGE_CONNECTION_STRING, or else
AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or with the login of azure-identity. The sha256 of an object is
kept as its metadata; on the way each piece has an MD5 that the service checks.
"""

from __future__ import annotations

import hashlib
import os
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobServiceClient, ExponentialRetry, generate_blob_sas

from cloudrun.config import Settings
from cloudrun.errors import Credentials, NotFound, ProviderError, TransferFailed
from cloudrun.providers.arriving import receive
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.session import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Session
from cloudrun.providers.base import StoredObject

# REST reference of Blob Storage: a batch holds up to 256 requests, a page up to 5,000 blobs, a blob up to
# 50,000 blocks. Seven days is what S3 allows, and what a key of a login allows here.
DELETE_KEYS = 256
BLOCK_BYTES = 16 << 20
LONGEST_SIGNED_S = 7 * 24 * 3600
RETRIES = 3
SPREAD = timedelta(minutes=5)  # between the first and the last of many addresses that are signed at once
GONE = (202, 404)  # of a deletion
SHA256 = "sha256"  # metadata of our objects


class BlobBucket:
    """A container below a prefix; see base.Bucket. Raises Credentials where no account is named."""

    delete_at_once = DELETE_KEYS
    put_headers: Mapping[str, str] = {"x-ms-blob-type": "BlockBlob"}  # REST reference, Put Blob
    region = ""  # no call of Blob Storage names it

    def __init__(self, container: str, prefix: str, settings: Settings) -> None:
        self.name, self.prefix = container, prefix
        self.url = f"az://{container}/{prefix}".rstrip("/")
        self._service = _service(settings)
        self._lock = threading.Lock()
        self._delegated: tuple[Any, datetime] | None = None
        self._container: Any = self._service.get_container_client(container)

    def put(self, key: str, path: Path, sha256: str) -> None:
        """See base.Bucket. It appears with the last call, when all blocks are in and right."""
        with self._asking(f"store {key}"), path.open("rb") as file:
            blob = self._container.get_blob_client(self._name(key))
            hasher = hashlib.sha256()
            blocks: list[BlobBlock] = []
            while piece := file.read(BLOCK_BYTES):
                hasher.update(piece)
                blocks.append(BlobBlock(block_id=b64encode(b"%08d" % len(blocks)).decode()))
                blob.stage_block(blocks[-1].id, piece, length=len(piece), validate_content=True)
            if hasher.hexdigest() != sha256:
                raise TransferFailed(f"{path} changed while it was stored", hint="give the command again")
            blob.commit_block_list(blocks, metadata={SHA256: sha256}, validate_content=True)

    def get(self, key: str, to: Path) -> str:
        """See base.Bucket."""
        with self._asking(f"fetch {key}"):
            found = self._container.download_blob(self._name(key), validate_content=False)
            sha256 = (found.properties.metadata or {}).get(SHA256, "")
            return receive(found.chunks(), to, sha256, name=f"{self.url}/{key}")

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """See base.Bucket: 5,000 a page."""
        with self._asking("list"):
            found = self._container.list_blobs(name_starts_with=self._name(prefix), include=["metadata"])
            for each in found:
                key = each.name.removeprefix(self._name(""))
                sha256 = (each.metadata or {}).get(SHA256, "")
                yield StoredObject(key, each.size, sha256, each.last_modified)

    def look(self, key: str) -> StoredObject | None:
        """See base.Bucket."""
        with self._asking(f"look at {key}"):
            try:
                found = self._container.get_blob_client(self._name(key)).get_blob_properties()
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", "") == "ContainerNotFound":
                    raise
                return None
            sha256 = (found.metadata or {}).get(SHA256, "")
            return StoredObject(key, found.size, sha256, found.last_modified)

    def folders(self) -> Iterator[str]:
        """See base.Bucket: 5,000 a page."""
        with self._asking("list"):
            for each in self._container.walk_blobs(name_starts_with=self._name(""), delimiter="/"):
                if each.name.endswith("/"):  # a prefix; blobs beside the folders come too
                    yield each.name.removeprefix(self._name("")).removesuffix("/")

    def delete(self, keys: Sequence[str]) -> int:
        """See base.Bucket. Raises ProviderError that names the first key which Azure would not delete."""
        batches = [keys[at : at + DELETE_KEYS] for at in range(0, len(keys), DELETE_KEYS)]
        for batch in batches:
            with self._asking("delete"):
                names = [self._name(key) for key in batch]
                answers = list(self._container.delete_blobs(*names, raise_on_any_failure=False))
            kept = [at for at, answer in enumerate(answers) if answer.status_code not in GONE]
            if kept:
                raise ProviderError(
                    f"{len(kept)} objects of {self.url} stay: {batch[kept[0]]}",
                    hint="look for a lease, a lock or a policy on the container",
                )
        return len(batches)

    def sign(self, key: str, method: str, ttl_s: float) -> str:
        """See base.Bucket: a SAS, by the account's key, or by a key that Azure gives to a login."""
        with self._asking(f"sign {key}"):
            ends = datetime.now(UTC) + timedelta(seconds=min(ttl_s, LONGEST_SIGNED_S))
            sas = generate_blob_sas(
                account_name=str(self._service.account_name),
                container_name=self.name,
                blob_name=self._name(key),
                permission={"GET": "r", "PUT": "cw"}[method],
                **self._signed_until(ends),
            )
            return f"{self._container.get_blob_client(self._name(key)).url}?{sas}"

    @property
    def signing_limit(self) -> str:
        """See base.Bucket."""
        by_login = not getattr(self._service.credential, "account_key", "")
        return "signed by a login of Azure: the addresses end with its rights" if by_login else ""

    def _signed_until(self, ends: datetime) -> dict[str, Any]:
        """The account's key, or one that Azure gave to the login: asked for once, not for each address, and a
        signature does not outlive it."""
        key = getattr(self._service.credential, "account_key", "")
        if key:
            return {"account_key": key, "expiry": ends}
        with self._lock:
            now = datetime.now(UTC)
            if self._delegated is None or self._delegated[1] < ends - SPREAD:
                longest = now + timedelta(seconds=LONGEST_SIGNED_S)
                until = min(ends + SPREAD, longest)
                given = self._service.get_user_delegation_key(now - timedelta(minutes=5), until)
                self._delegated = given, until
            key, until = self._delegated
        return {"user_delegation_key": key, "expiry": min(ends, until)}

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn the SDK's errors into ours."""
        with mapped(region="", what=f"{what} in {self.url}"):
            try:
                yield
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", "") == "ContainerNotFound":
                    hint = f"make it with: az storage container create --name {self.name}"
                    raise NotFound(f"there is no container {self.name}", hint=hint) from error
                raise NotFound(f"{self.url}: no such object ({what})", hint="it was deleted") from error
            except HttpResponseError as error:
                if error.status_code not in (401, 403):
                    raise
                raise Credentials(
                    f"Azure, {what} in {self.url}: these credentials may not do that",
                    hint="check AZURE_STORAGE_KEY, or grant the role Storage Blob Data Contributor",
                ) from error


def _service(settings: Settings) -> BlobServiceClient:
    """The account's client. Nothing is asked yet."""
    options: dict[str, Any] = {
        "retry_policy": ExponentialRetry(
            initial_backoff=1, increment_base=2, retry_total=RETRIES, random_jitter_range=1
        ),
        "connection_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
    }
    told = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    account = os.environ.get("AZURE_STORAGE_ACCOUNT", "")
    if told:
        try:
            return BlobServiceClient.from_connection_string(told, **options)
        except ValueError as error:
            raise Credentials(
                f"AZURE_STORAGE_CONNECTION_STRING: {error}",
                hint="az storage account show-connection-string writes one",
            ) from error
    if not account:
        raise Credentials(
            "no storage account of Azure is set",
            hint="set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and run `az login`",
        )
    credential = os.environ.get("AZURE_STORAGE_KEY") or Session(settings).credential
    return BlobServiceClient(f"https://{account}.blob.core.windows.net", credential, **options)
