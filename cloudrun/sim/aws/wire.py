"""What travels: calls as they come in, answers and errors in the two shapes that AWS speaks.

EC2 takes forms (`Filter.1.Name=...`) and answers XML; Service Quotas and Pricing take and answer JSON.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4
from xml.etree import ElementTree as Xml

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
FORM = "application/x-www-form-urlencoded"
XML, JSON, TEXT = "text/xml;charset=UTF-8", "application/x-amz-json-1.1", "text/plain; charset=utf-8"

Environ = dict[str, Any]
Form = dict[str, str]

# Codes that EC2 does not answer with 400 (EC2 API reference, "Error codes").
_STATUS = {
    "InsufficientInstanceCapacity": 500,
    "InsufficientCapacity": 500,
    "InternalError": 500,
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
    "UnauthorizedOperation": 403,
    "AuthFailure": 401,
    "DryRunOperation": 412,
}


class ApiError(Exception):
    """A refusal as AWS words it: a code for programs and a message for people."""

    def __init__(self, code: str, message: str, status: int = 0) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status or _STATUS.get(code, 400)


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a service, in a region. `form` is an EC2 call's parameters, `data` a JSON call's."""

    service: str
    action: str
    region: str
    form: Form
    data: Mapping[str, Any]
    body: bytes
    environ: Environ = field(repr=False)

    def with_form(self, form: Form) -> Request:
        return Request(self.service, self.action, self.region, form, self.data, self.body, self.environ)

    def for_action(self, action: str, form: Form) -> Request:
        """Another EC2 call on behalf of the same caller."""
        filled = {"Action": action, "Version": self.form.get("Version", "2016-11-15"), **form}
        return Request(self.service, action, self.region, filled, self.data, self.body, self.environ)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `code` is the error code, "" for success."""

    status: int
    body: bytes
    content_type: str
    code: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Reply]


def read_request(environ: Environ) -> Request:
    """The call in a WSGI environment. The body is put back, so that another application can read it."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = environ["wsgi.input"].read(length) if length else b""
    region, service = _scope(environ.get("HTTP_AUTHORIZATION", "") or _signed_query(environ))
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    form: Form = {}
    data: Mapping[str, Any] = {}
    if target:
        action = target.rpartition(".")[2]
        data = _json_object(body)
    elif service == "s3":  # whatever type the object has
        action = _object_action(environ)
    elif environ.get("CONTENT_TYPE", "").startswith(FORM):
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        action = form.get("Action", "")
    else:
        action = ""
    return Request(service, action, region, form, data, body, environ)


def _object_action(environ: Environ) -> str:
    """S3's name of a call that is told by method and address alone; "" for those that nobody asks about."""
    method, query = environ["REQUEST_METHOD"], parse_qsl(environ.get("QUERY_STRING", ""), True)
    within = environ.get("PATH_INFO", "").strip("/").count("/") > 0
    names = {name for name, _ in query}
    if method == "POST" and "delete" in names:
        return "DeleteObjects"
    if method == "GET" and not within:
        return "ListObjectsV2"
    if "uploadId" in names or "uploads" in names:
        return "MultipartUpload"
    return (
        {"GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}.get(method, "") if within else ""
    )


def with_body(environ: Environ, body: bytes) -> Environ:
    """A copy of the environment that carries another body."""
    from io import BytesIO

    return {**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}


def encode_form(form: Form) -> bytes:
    return urlencode(form).encode()


def _scope(authorization: str) -> tuple[str, str]:
    """Region and service out of a Signature Version 4 header."""
    scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
    return (scope[2], scope[3]) if len(scope) == 5 else ("us-east-1", "")


def _signed_query(environ: Environ) -> str:
    """The scope of an address that was signed beforehand, as the header has it; "" for another."""
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    return f"Credential={query['X-Amz-Credential']}" if "X-Amz-Credential" in query else ""


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# Forms


def members(form: Form, name: str) -> list[str]:
    """Values of a numbered list of plain values: InstanceId.1, InstanceId.2 ..."""
    found = [(key[len(name) + 1 :], value) for key, value in form.items() if key.startswith(name + ".")]
    return [value for number, value in sorted(found, key=lambda item: _number(item[0])) if number.isdigit()]


def structures(form: Form, name: str) -> list[Form]:
    """A numbered list of structures, each as a form of its own."""
    found: dict[str, Form] = {}
    for key, value in form.items():
        if key.startswith(name + "."):
            number, _, rest = key[len(name) + 1 :].partition(".")
            found.setdefault(number, {})[rest] = value
    return [found[number] for number in sorted(found, key=_number)]


def filters_of(form: Form) -> dict[str, list[str]]:
    return {entry.get("Name", ""): members(entry, "Value") for entry in structures(form, "Filter")}


def without_list(form: Form, name: str) -> Form:
    return {key: value for key, value in form.items() if not key.startswith(name + ".")}


def with_filters(form: Form, filters: Mapping[str, Sequence[str]]) -> Form:
    """The form with exactly these filters."""
    changed = without_list(form, "Filter")
    for number, (name, values) in enumerate(filters.items(), start=1):
        changed[f"Filter.{number}.Name"] = name
        changed |= {f"Filter.{number}.Value.{place}": value for place, value in enumerate(values, start=1)}
    return changed


def tag_specifications(form: Form, resource_type: str) -> dict[str, str]:
    """The tags that a create call asks for, for one type of resource."""
    return {
        tag.get("Key", ""): tag.get("Value", "")
        for entry in structures(form, "TagSpecification")
        if entry.get("ResourceType") == resource_type
        for tag in structures(entry, "Tag")
    }


def fits(value: str, patterns: Sequence[str]) -> bool:
    """Whether a value passes a filter: any of its values, with * and ? as wildcards."""
    return any(fnmatch.fnmatchcase(value, pattern.replace("[", "[[]")) for pattern in patterns)


def whole_number(form: Form, name: str, default: int) -> int:
    text = form.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ApiError("InvalidParameterValue", f"Value ({text}) for parameter {name} is invalid.") from None


def decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise ApiError("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from None


def _number(text: str) -> tuple[int, str]:
    head = text.partition(".")[0]
    return (int(head) if head.isdigit() else 0, text)


# Answers


def ec2_reply(action: str, content: Mapping[str, Any]) -> Reply:
    """An EC2 answer: mappings become elements, lists become <item>s, None is left out."""
    root = Xml.Element(f"{action}Response", xmlns=NAMESPACE)
    Xml.SubElement(root, "requestId").text = str(uuid4())
    for name, value in content.items():
        _append(root, name, value)
    return Reply(200, _bytes_of(root), XML)


def _append(parent: Xml.Element, name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, Xml.Element):
        value.tag = name
        parent.append(value)
        return
    child = Xml.SubElement(parent, name)
    if isinstance(value, Mapping):
        for key, each in value.items():
            _append(child, key, each)
    elif isinstance(value, list | tuple):
        for each in value:
            _append(child, "item", each)
    else:
        child.text = _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return wire_time(value)
    return str(value)


def wire_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def read_time(text: str) -> datetime | None:
    """A time as clients send it; None for none."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ApiError("InvalidParameterValue", f"Invalid time value {text}") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def parse_xml(reply: Reply) -> Xml.Element:
    """The root of an XML answer, namespaces taken off the names."""
    root = Xml.fromstring(reply.body)  # noqa: S314 - made in this process
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _bytes_of(root: Xml.Element) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root)


def error_reply(request: Request, error: ApiError) -> Reply:
    """The error in the shape that the service's clients read."""
    if request.environ.get("HTTP_X_AMZ_TARGET"):
        content = {"__type": error.code, "message": error.message}
        return Reply(error.status, json.dumps(content).encode(), JSON, error.code)
    root = Xml.Element("Error" if request.service == "s3" else "Response")
    detail = root if request.service == "s3" else Xml.SubElement(Xml.SubElement(root, "Errors"), "Error")
    Xml.SubElement(detail, "Code").text = error.code
    Xml.SubElement(detail, "Message").text = error.message
    Xml.SubElement(root, "RequestID").text = str(uuid4())
    return Reply(error.status, _bytes_of(root), XML, error.code)


def json_reply(content: Mapping[str, Any]) -> Reply:
    return Reply(200, json.dumps(content).encode(), JSON)


def page(rows: Sequence[Any], form: Form, *, most: int) -> tuple[list[Any], str]:
    """One page of rows by MaxResults and NextToken, and the token of the next ("" = last)."""
    start = whole_number(form, "NextToken", 0)
    size = min(whole_number(form, "MaxResults", most), most)
    end = start + size
    return list(rows[start:end]), str(end) if end < len(rows) else ""
