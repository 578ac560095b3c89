"""What S3 checks and moto does not: the checksum of what arrives, and for how long and for which headers an
address was signed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

from cloudrun.sim.aws.wire import ApiError, Handler, Reply, Request

CHECKED = ("PutObject", "GetObject", "MultipartUpload")


def checked(answer: Callable[[Request], Reply]) -> Handler:
    """The answer to a call on an object, once it has passed."""

    def handle(request: Request) -> Reply:
        _check_expiry(request)
        _check_signed_headers(request)
        _check_content(request)
        return answer(request)

    return handle


def _check_expiry(request: Request) -> None:
    query = dict(parse_qsl(request.environ.get("QUERY_STRING", "")))
    if "X-Amz-Expires" not in query:
        return
    signed_at = datetime.strptime(query.get("X-Amz-Date", ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if datetime.now(UTC) > signed_at + timedelta(seconds=int(query["X-Amz-Expires"])):
        raise ApiError("AccessDenied", "Request has expired", 403)


def _check_signed_headers(request: Request) -> None:
    """A signed address is for the headers that it names: S3's own may not come beside them."""
    query = dict(parse_qsl(request.environ.get("QUERY_STRING", "")))
    if "X-Amz-SignedHeaders" not in query:
        return
    signed = query["X-Amz-SignedHeaders"].split(";")
    sent = [name[5:].replace("_", "-").lower() for name in request.environ if name.startswith("HTTP_X_AMZ_")]
    if any(name not in signed for name in sent):
        raise ApiError("AccessDenied", "There were headers present in the request which were not signed", 403)


def _check_content(request: Request) -> None:
    told = request.environ.get("HTTP_X_AMZ_CHECKSUM_SHA256", "")
    if told and told != base64.b64encode(hashlib.sha256(request.body).digest()).decode():
        raise ApiError("BadDigest", "The SHA256 you specified did not match the calculated checksum.")
    told = request.environ.get("HTTP_CONTENT_MD5", "")
    md5 = hashlib.md5(request.body, usedforsecurity=False).digest()
    if told and told != base64.b64encode(md5).decode():
        raise ApiError("BadDigest", "The Content-MD5 you specified did not match what we received.")
