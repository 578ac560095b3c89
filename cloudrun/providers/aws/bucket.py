"""A bucket of S3 as a place for objects, through boto3.

The sha256 of an object travels twice: in S3's own checksum field, so that S3 refuses what arrives changed,
and as metadata, which is there also for an object of several parts (S3 keeps only a checksum of checksums of
those).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from cloudrun.config import Settings
from cloudrun.errors import ConfigError, NotFound, ProviderError
from cloudrun.providers.arriving import receive
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.session import CONNECT_TIMEOUT_S, READ_ATTEMPTS, READ_TIMEOUT_S, Session
from cloudrun.providers.base import StoredObject

# Amazon S3 User Guide: DeleteObjects takes up to 1,000 keys, a PUT up to 5 GiB, an upload up to 10,000 parts;
# a Signature Version 4 address lives for at most 7 days.
DELETE_KEYS = 1000
PART_BYTES = 512 << 20
LONGEST_SIGNED_S = 7 * 24 * 3600
FALLBACK_REGION = "us-east-1"  # S3 itself says where a bucket is, and boto3 asks again there
THREADS = 4
CHUNK_BYTES = 1 << 20
SHA256 = "sha256"  # metadata of our objects
NO_BODY_404 = "404"  # an answer to HEAD has no body that could say more


class S3Bucket:
    """A bucket below a prefix; see base.Bucket. Constructing one does no I/O but reading AWS's own files.
    Raises Credentials."""

    delete_at_once = DELETE_KEYS
    put_headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, bucket: str, prefix: str, settings: Settings) -> None:
        session = Session(settings)
        session.require_credentials()
        try:
            region = session.home_region
        except ConfigError:
            region = FALLBACK_REGION
        self._config = Config(
            signature_version="s3v4",
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": READ_ATTEMPTS},
        )
        self.bucket, self.prefix, self._home_region = bucket, prefix, region
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._boto: Any = boto3.Session()
        self._s3: Any = self._boto.client("s3", region_name=region, config=self._config)
        self._signs: Any = None
        self._lock = threading.Lock()

    @property
    def region(self) -> str:
        """See base.Bucket."""
        with self._asking("look at the bucket"):
            return str(self._signer().meta.region_name)

    def put(self, key: str, path: Path, sha256: str) -> None:
        """See base.Bucket. What is larger than PART_BYTES goes in parts, and appears when the last is in."""
        with self._asking(f"store {key}"), path.open("rb") as file:
            named = {"Bucket": self.bucket, "Key": self._name(key)}
            size = os.fstat(file.fileno()).st_size
            if size > PART_BYTES:
                self._put_parts(named, file, sha256)
                return
            checksum = base64.b64encode(binascii.unhexlify(sha256)).decode()
            self._s3.put_object(
                **named, Body=file, ContentLength=size, ChecksumSHA256=checksum, Metadata={SHA256: sha256}
            )

    def get(self, key: str, to: Path) -> str:
        """See base.Bucket."""
        with self._asking(f"fetch {key}"):
            answer = self._s3.get_object(Bucket=self.bucket, Key=self._name(key))
            chunks = answer["Body"].iter_chunks(CHUNK_BYTES)
            return receive(chunks, to, answer["Metadata"].get(SHA256, ""), name=f"{self.url}/{key}")

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """See base.Bucket: 1,000 a page, and S3's listing tells no checksums."""
        with self._asking("list"):
            pages = self._s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._name(prefix)):
                for each in page.get("Contents", ()):
                    key = each["Key"].removeprefix(self._name(""))
                    yield StoredObject(key, each["Size"], "", each["LastModified"])

    def look(self, key: str) -> StoredObject | None:
        """See base.Bucket."""
        with self._asking(f"look at {key}"):
            try:
                found = self._s3.head_object(Bucket=self.bucket, Key=self._name(key))
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == NO_BODY_404:
                    return None
                raise
            sha256 = found["Metadata"].get(SHA256, "")
            return StoredObject(key, found["ContentLength"], sha256, found["LastModified"])

    def folders(self) -> Iterator[str]:
        """See base.Bucket: 1,000 a page."""
        with self._asking("list"):
            pages = self._s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._name(""), Delimiter="/"):
                for each in page.get("CommonPrefixes", ()):
                    yield each["Prefix"].removeprefix(self._name("")).removesuffix("/")

    def delete(self, keys: Sequence[str]) -> int:
        """See base.Bucket. Raises ProviderError that names the first key which S3 would not delete."""
        batches = [keys[at : at + DELETE_KEYS] for at in range(0, len(keys), DELETE_KEYS)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._delete_batch, batches))
        return len(batches)

    def sign(self, key: str, method: str, ttl_s: float) -> str:
        """See base.Bucket. It lives no longer than the credentials that signed it, and names the region where
        the bucket is: S3 leads nobody on who comes with a signature for another one."""
        operation = {"GET": "get_object", "PUT": "put_object"}[method]
        told = {"Bucket": self.bucket, "Key": self._name(key)}
        with self._asking(f"sign {key}"):
            url = self._signer().generate_presigned_url(
                operation, Params=told, ExpiresIn=int(min(ttl_s, LONGEST_SIGNED_S))
            )
        return str(url)

    @property
    def signing_limit(self) -> str:
        """See base.Bucket."""
        with self._asking("sign"):
            found = self._boto.get_credentials()
        return "signed with credentials of a session: the addresses end with it" if found.token else ""

    def _signer(self) -> Any:
        """A client of the bucket's own region, asked for once."""
        with self._lock:
            if self._signs is None:
                answer = self._s3.head_bucket(Bucket=self.bucket)
                headers = answer["ResponseMetadata"]["HTTPHeaders"]
                region = headers.get("x-amz-bucket-region", self._home_region)
                here = region == self._home_region
                self._signs = self._s3 if here else self._boto.client("s3", region, config=self._config)
            return self._signs

    def _put_parts(self, named: dict[str, str], file: Any, sha256: str) -> None:
        begun = self._s3.create_multipart_upload(
            **named, ChecksumAlgorithm="SHA256", Metadata={SHA256: sha256}
        )
        named = {**named, "UploadId": begun["UploadId"]}
        parts: list[dict[str, object]] = []
        try:
            while piece := file.read(PART_BYTES):
                number, checksum = len(parts) + 1, base64.b64encode(hashlib.sha256(piece).digest()).decode()
                done = self._s3.upload_part(**named, PartNumber=number, Body=piece, ChecksumSHA256=checksum)
                parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumSHA256": checksum})
            self._s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
        except BaseException:
            self._s3.abort_multipart_upload(**named)  # parts of an upload that was left are billed
            raise

    def _delete_batch(self, keys: Sequence[str]) -> None:
        with self._asking("delete"):
            told = {"Objects": [{"Key": self._name(key)} for key in keys], "Quiet": True}
            refused = self._s3.delete_objects(Bucket=self.bucket, Delete=told).get("Errors", ())
        if refused:
            first = refused[0]
            raise ProviderError(
                f"{len(refused)} objects of {self.url} stay: {first['Key']}: {first['Code']}",
                hint="look for a lock or a policy on the bucket",
            )

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn boto3's errors into ours."""
        with mapped(region=self._home_region, what=f"{what} in {self.url}"):
            try:
                yield
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                if code == "NoSuchBucket":
                    hint = f"make it with: aws s3 mb s3://{self.bucket}"
                    raise NotFound(f"there is no bucket {self.bucket}", hint=hint) from error
                if code == "NoSuchKey":
                    raise NotFound(f"{self.url}: no such object ({what})", hint="it was deleted") from error
                raise
