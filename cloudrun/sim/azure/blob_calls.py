"""A call of Blob Storage, taken apart, and whether its caller may make it.

Signatures are computed anew as in "Authorize with Shared Key" and "Create a service SAS" of the REST
reference of Azure Storage, read 2026-11. A login's token, and a SAS by a key that Azure gave to a login, are
believed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from cloudrun.sim.azure.wire import ApiError, Environ

ACCOUNT = "rehearsal"
KEY = base64.b64encode(b"a rehearsal has no secrets").decode()
RAW_PATH = "RAW_URI"  # in the environment of a call: the target as it was sent
_SIGNED = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"),
    *("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)
_BEFORE, _AFTER = ("sp", "st", "se"), ("si", "sip", "spr", "sv", "sr", "snapshot", "ses")
_ANSWER_HEADERS = ("rscc", "rscd", "rsce", "rscl", "rsct")
_RIGHT = {"GET": "r", "HEAD": "r", "PUT": "w", "DELETE": "d"}


@dataclass(slots=True)
class Call:
    """One call. Header names are in lower case; path is as it was sent, without the query."""

    method: str
    container: str
    name: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    path: str = ""


def read_call(environ: Environ) -> Call:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    container, _, name = str(environ["PATH_INFO"]).removeprefix(f"/{ACCOUNT}/").partition("/")
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    body = environ["wsgi.input"].read(length) if length else b""
    path = str(environ.get(RAW_PATH, environ["PATH_INFO"])).partition("?")[0]
    return Call(environ["REQUEST_METHOD"], container, name, query, headers, body, path)


def check_caller(call: Call) -> None:
    """A key, a token, or a SAS that is in time, for this blob and for what is done with it: else ApiError."""
    if "sig" in call.query:
        _check_sas(call)
        return
    scheme, _, told = call.headers.get("authorization", "").partition(" ")
    if scheme == "Bearer" and told:
        return
    if scheme != "SharedKey" or told != f"{ACCOUNT}:{_signed(_shared_key_text(call))}":
        raise _not_authentic()


def _check_sas(call: Call) -> None:
    query = call.query
    by_login = "skoid" in query
    if not by_login and query["sig"] != _signed(_sas_text(call)):
        raise _not_authentic()
    if datetime.now(UTC) >= datetime.fromisoformat(query.get("se", "1970-01-01T00:00:00Z")):
        raise _not_authentic()
    if _RIGHT.get(call.method, "?") not in query.get("sp", ""):
        message = "This request is not authorized to perform this operation using this permission."
        raise ApiError("AuthorizationPermissionMismatch", message, 403)


def _sas_text(call: Call) -> str:
    resource = f"/blob/{ACCOUNT}/{call.container}/{call.name}"
    values = [call.query.get(name, "") for name in _BEFORE]
    values += [resource, *(call.query.get(name, "") for name in (*_AFTER, *_ANSWER_HEADERS))]
    return "\n".join(values)


def _shared_key_text(call: Call) -> str:
    head = dict(call.headers)
    if head.get("content-length") == "0":
        head["content-length"] = ""
    own = sorted(f"{name}:{value}" for name, value in head.items() if name.startswith("x-ms-"))
    query = sorted(f"{name.lower()}:{value}" for name, value in call.query.items())
    lines = [call.method, *(head.get(name, "") for name in _SIGNED), *own, f"/{ACCOUNT}{call.path}", *query]
    return "\n".join(lines)


def _signed(text: str) -> str:
    return base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()


def _not_authentic() -> ApiError:
    return ApiError("AuthenticationFailed", "Server failed to authenticate the request.", 403)
