"""Azure Blob Storage, the part that keeps outputs: block blobs of one account, in memory.

Calls come as /ACCOUNT/CONTAINER/BLOB, as the emulators of Azure Storage have it.

Compared with Azurite 3.35 on 2026-11-21, by the same calls of the provider on both. They differ in a batch of
deletions from a container that is not there, which Azurite accepts with a 404 for each part; and in the codes
beside some statuses, where this follows the REST reference: Md5Mismatch, MissingRequiredHeader, and
AuthenticationFailed for a SAS that ran out or is another blob's.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as Xml

from cloudrun.sim.azure.blob_calls import ACCOUNT, KEY, Call, check_caller, read_call
from cloudrun.sim.azure.wire import ApiError, Environ

PAGE = 5000
BATCH = 256
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PART = re.compile(rb"Content-ID: (\d+).*?\r\n\r\n(\w+) (\S+) HTTP", re.DOTALL | re.IGNORECASE)

Headers = dict[str, str]
Answer = tuple[int, Headers, bytes]


@dataclass(slots=True)
class Blob:
    content: bytes
    metadata: Headers = field(default_factory=dict)
    modified_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    tag: str = field(default_factory=lambda: f'"0x{uuid.uuid4().hex[:15].upper()}"')


class Storage:
    """The account as a WSGI application, steered and asked by its other methods. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Everything is gone: containers, and the record of calls."""
        with self._lock:
            self._containers: dict[str, dict[str, Blob]] = {}
            self._blocks: dict[tuple[str, str], dict[str, bytes]] = {}
            self._calls: list[str] = []
            self._forbidden: set[str] = set()

    def add_container(self, name: str) -> None:
        with self._lock:
            self._containers.setdefault(name, {})

    def put(self, container: str, name: str, content: bytes) -> None:
        with self._lock:
            self._containers[container][name] = Blob(content)

    def change(self, container: str, name: str, how: Callable[[bytes], bytes]) -> None:
        """Other content for a blob, its metadata as they were."""
        with self._lock:
            blob = self._containers[container][name]
            blob.content = how(blob.content)

    def forbid(self, *names: str) -> None:
        """Calls of these names (the REST reference's) are more than the caller may do, from now on."""
        with self._lock:
            self._forbidden.update(names)

    def calls(self) -> list[str]:
        """Names of the calls that came in, as the REST reference has them."""
        with self._lock:
            return list(self._calls)

    def environment(self, url: str) -> dict[str, str]:
        """The variable that points azure-storage-blob at this account."""
        told = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url}/{ACCOUNT};"
        return {"AZURE_STORAGE_CONNECTION_STRING": told}

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        call = read_call(environ)
        try:
            with self._lock:
                check_caller(call)
                status, headers, body = self._answer(call)
        except ApiError as error:
            status, headers = error.status, {"x-ms-error-code": error.code, **error.headers}
            root = Xml.Element("Error")
            Xml.SubElement(root, "Code").text = error.code
            Xml.SubElement(root, "Message").text = error.message
            body = Xml.tostring(root, "utf-8", xml_declaration=True)
            headers["Content-Type"] = "application/xml"
        headers = {"x-ms-version": call.headers.get("x-ms-version", ""), **headers}
        headers = {"x-ms-request-id": str(uuid.uuid4()), "Content-Length": str(len(body)), **headers}
        start_response(f"{status} Answer", list(headers.items()))
        return [body]

    def _answer(self, call: Call) -> Answer:
        name, handler = self._handler(call)
        self._calls.append(name)
        if name in self._forbidden:
            message = "This request is not authorized to perform this operation using this permission."
            raise ApiError("AuthorizationPermissionMismatch", message, 403)
        if call.container not in self._containers and name != "Create Container":
            raise ApiError("ContainerNotFound", "The specified container does not exist.", 404)
        told = call.headers.get("content-md5", "")
        md5 = base64.b64encode(hashlib.md5(call.body, usedforsecurity=False).digest()).decode()
        if told and told != md5:
            raise ApiError("Md5Mismatch", "The MD5 value specified did not match with the one computed.", 400)
        return handler(call)

    def _handler(self, call: Call) -> tuple[str, Callable[[Call], Answer]]:
        comp = call.query.get("comp", "")
        table: dict[tuple[str, bool, str], tuple[str, Callable[[Call], Answer]]] = {
            ("PUT", False, ""): ("Create Container", self._create),
            ("GET", False, "list"): ("List Blobs", self._list),
            ("POST", False, "batch"): ("Batch", self._batch),
            ("PUT", True, ""): ("Put Blob", self._put),
            ("PUT", True, "block"): ("Put Block", self._stage),
            ("PUT", True, "blocklist"): ("Put Block List", self._commit),
            ("GET", True, ""): ("Get Blob", self._get),
            ("HEAD", True, ""): ("Get Blob Properties", self._look),
            ("DELETE", True, ""): ("Delete Blob", self._delete),
        }
        found = table.get((call.method, bool(call.name), comp))
        if found is None:
            raise ApiError("UnsupportedHttpVerb", f"The rehearsal lacks {call.method} {comp}.", 405)
        return found

    def _create(self, call: Call) -> Answer:
        if call.container in self._containers:
            raise ApiError("ContainerAlreadyExists", "The specified container already exists.", 409)
        self._containers[call.container] = {}
        return 201, {"ETag": '"0x1"', "Last-Modified": _http_time(datetime.now(UTC))}, b""

    def _put(self, call: Call) -> Answer:
        if call.headers.get("x-ms-blob-type") != "BlockBlob":
            raise ApiError("MissingRequiredHeader", "x-ms-blob-type has to be BlockBlob.", 400)
        return self._keep(call, call.body)

    def _stage(self, call: Call) -> Answer:
        self._blocks.setdefault((call.container, call.name), {})[call.query["blockid"]] = call.body
        return 201, {}, b""

    def _commit(self, call: Call) -> Answer:
        staged = self._blocks.pop((call.container, call.name), {})
        wanted = [each.text or "" for each in Xml.fromstring(call.body)]  # noqa: S314 - made by the SDK
        if any(each not in staged for each in wanted):
            raise ApiError("InvalidBlockList", "The specified block list is invalid.", 400)
        return self._keep(call, b"".join(staged[each] for each in wanted))

    def _keep(self, call: Call, content: bytes) -> Answer:
        prefix = "x-ms-meta-"
        metadata = {
            name.removeprefix(prefix): value
            for name, value in call.headers.items()
            if name.startswith(prefix)
        }
        blob = self._containers[call.container][call.name] = Blob(content, metadata)
        return 201, {"ETag": blob.tag, "Last-Modified": _http_time(blob.modified_at)}, b""

    def _look(self, call: Call) -> Answer:
        blob = self._find(call)
        return 200, _facts(blob) | {"Content-Length": str(len(blob.content))}, b""

    def _get(self, call: Call) -> Answer:
        blob = self._find(call)
        size = len(blob.content)
        headers = _facts(blob)
        found = _RANGE.fullmatch(call.headers.get("x-ms-range", call.headers.get("range", "")))
        if not found:
            return 200, headers, blob.content
        begin, end = int(found[1]), min(int(found[2] or size), size - 1)
        if begin >= size:
            raise ApiError(
                "InvalidRange", "The range is invalid.", 416, headers={"Content-Range": f"bytes */{size}"}
            )
        headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
        return 206, headers, blob.content[begin : end + 1]

    def _delete(self, call: Call) -> Answer:
        self._find(call)
        del self._containers[call.container][call.name]
        return 202, {}, b""

    def _list(self, call: Call) -> Answer:
        prefix, marker = call.query.get("prefix", ""), call.query.get("marker", "")
        most = min(int(call.query.get("maxresults") or PAGE), PAGE)
        blobs = self._containers[call.container]
        delimiter = call.query.get("delimiter", "")
        shown = {_up_to(name, prefix, delimiter) for name in blobs if name.startswith(prefix)}
        names = sorted(name for name in shown if name >= marker)
        root = Xml.Element("EnumerationResults", ContainerName=call.container)
        asked = {"Prefix": prefix, "Marker": marker, "MaxResults": str(most), "Delimiter": delimiter}
        for tag, value in asked.items():  # a client asks for the next page by what stands here
            if value:
                Xml.SubElement(root, tag).text = value
        rows = Xml.SubElement(root, "Blobs")
        for name in names[:most]:
            if delimiter and name.endswith(delimiter):
                Xml.SubElement(Xml.SubElement(rows, "BlobPrefix"), "Name").text = name
                continue
            rows.append(_row(name, blobs[name], "metadata" in call.query.get("include", "")))
        Xml.SubElement(root, "NextMarker").text = names[most] if len(names) > most else ""
        body = Xml.tostring(root, "utf-8", xml_declaration=True)
        return 200, {"Content-Type": "application/xml"}, body

    def _batch(self, call: Call) -> Answer:
        parts = _PART.findall(call.body)
        if not 0 < len(parts) <= BATCH:
            raise ApiError("InvalidInput", "A batch holds 1 to 256 requests.", 400)
        boundary = f"batchresponse_{uuid.uuid4()}"
        lines = []
        for number, method, target in parts:
            lines.append(
                f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: {number.decode()}\r\n"
            )
            lines.append(f"\r\n{self._batched(call, method.decode(), target.decode())}\r\n")
        body = "".join([*lines, f"--{boundary}--\r\n"]).encode()
        return 202, {"Content-Type": f"multipart/mixed; boundary={boundary}"}, body

    def _batched(self, call: Call, method: str, target: str) -> str:
        path, _, _ = target.partition("?")
        container, _, name = unquote(path).lstrip("/").removeprefix(f"{ACCOUNT}/").partition("/")
        if method != "DELETE" or container != call.container:  # a batch deletes, and in one container
            return "HTTP/1.1 400 InvalidInput\r\nx-ms-error-code: InvalidInput\r\n"
        try:
            self._delete(Call(method, container, name, {}, {}, b""))
            return "HTTP/1.1 202 Accepted\r\nx-ms-delete-type-permanent: true\r\n"
        except ApiError as error:
            return f"HTTP/1.1 {error.status} {error.code}\r\nx-ms-error-code: {error.code}\r\n"

    def _find(self, call: Call) -> Blob:
        blob = self._containers[call.container].get(call.name)
        if blob is None:
            raise ApiError("BlobNotFound", "The specified blob does not exist.", 404)
        return blob


def _up_to(name: str, prefix: str, delimiter: str) -> str:
    """A name up to the first delimiter behind the prefix: what a listing by folders shows in its place."""
    head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
    return f"{prefix}{head}{delimiter}" if found else name


def _facts(blob: Blob) -> Headers:
    """What every answer about a blob tells in its head."""
    return {
        "ETag": blob.tag,
        "Last-Modified": _http_time(blob.modified_at),
        "x-ms-blob-type": "BlockBlob",
        "Content-Type": "application/octet-stream",
        **{f"x-ms-meta-{name}": value for name, value in blob.metadata.items()},
    }


def _row(name: str, blob: Blob, with_metadata: bool) -> Xml.Element:
    row = Xml.Element("Blob")
    Xml.SubElement(row, "Name").text = name
    facts = Xml.SubElement(row, "Properties")
    Xml.SubElement(facts, "Last-Modified").text = _http_time(blob.modified_at)
    Xml.SubElement(facts, "Etag").text = blob.tag
    Xml.SubElement(facts, "Content-Length").text = str(len(blob.content))
    Xml.SubElement(facts, "BlobType").text = "BlockBlob"
    if with_metadata:
        told = Xml.SubElement(row, "Metadata")
        for key, value in blob.metadata.items():
            Xml.SubElement(told, key).text = value
    return row


def _http_time(at: datetime) -> str:
    return format_datetime(at, usegmt=True)
