"""What Azure refuses, in our words: azure.core's errors, and the codes of operations that failed late.

A code counts wherever it stands: Resource Manager wraps the one that matters in others, and an operation that
failed late is told with status 200. codes.py has the table.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from azure.core import exceptions as core

from cloudrun import catalog
from cloudrun.errors import CloudrunError, ConnectionLost, Credentials, NotOffered, ProviderError
from cloudrun.providers.azure.codes import (
    BAD_GENERATION,
    BAD_TYPE,
    KINDS,
    LOGIN,
    OF_STATUS,
    WRAPPERS,
    find_row,
)
from cloudrun.providers.refusals import Kind, Row, place, shortened

MAKERS = ("PUT", "POST", "PATCH")  # where the answer of such a call is lost, what it makes may be there
DEEPEST = 8  # codes within codes: Azure nests two or three

Found = tuple[str, str]  # a code of Azure, and its words

# What goes wrong is told by our errors. Without a handler the SDK's warnings would stand on the terminal too;
# whoever configures logging gets them.
for _logger in ("azure", "msal"):
    logging.getLogger(_logger).addHandler(logging.NullHandler())

_QUOTA = re.compile(
    r"exceeding (?:approved (?P<family>.+?) quota|quota limits of (?P<old>\w+))", re.IGNORECASE
)
_LIMIT = re.compile(r"(?:Current Limit|Maximum allowed): (\d+)", re.IGNORECASE)
_USAGE = re.compile(r"Current (?:Usage|in use): (\d+)", re.IGNORECASE)
_NEEDED = re.compile(r"Additional (?:Required|requested): (\d+)", re.IGNORECASE)
_ACTION = re.compile(r"action(?:\(s\))? '([^']+)'")
_NAMESPACE = re.compile(r"namespace '([\w.]+)'")
_BAD_TYPE = re.compile(r"\bVM size\b|\bvmSize\b", re.IGNORECASE)
_NO_IMAGE = re.compile(r"^The Image '?/\S+ cannot be found", re.IGNORECASE)
_GENERATION = re.compile(r"hypervisor generation", re.IGNORECASE)
_LOGIN_CODE = re.compile(r"AADSTS\d+: ?[^\r\n]*")


@contextmanager
def mapped(*, region: str, type: str = "", what: str = "") -> Iterator[None]:
    """Turn azure.core's errors into ours. `what` was tried, in words: "launch".

    Raises ConnectionLost where the answer to a call that makes or changes something was lost: it may have
    come through. A lost answer to a mere question is a ProviderError.
    """
    try:
        yield
    except core.AzureError as error:
        raise _azure_error(error, region=region, type=type, what=what) from error
    except (core.SerializationError, core.DeserializationError) as error:
        where = place("Azure", region=region, type=type, what=what)
        raise ProviderError(f"{where}: {error}", hint="check the command's values") from error


def error_for(
    code: str, words: str = "", *, region: str, type: str = "", what: str = "", wait_s: float | None = None
) -> CloudrunError:
    """The error of ours for a code of Azure: that of a call, of an operation, or of a failed provisioning
    state. `words` are Azure's own, which may hold codes of their own. wait_s: Azure said to wait that long.
    """
    code, words = _telling([(code, words), *_in_text(words)])
    where = place("Azure", region=region, type=type, what=what)
    row = _row_of(code, words, type)
    if row is None:
        return ProviderError(
            f"{where}: Azure says {code or 'no'}: {shortened(words)}".rstrip(": "),
            hint="the documentation of Azure Resource Manager explains its codes",
        )
    kind = KINDS[row.kind]
    said = f"{where}: {row.meaning}{_quoted(row, kind, words, wait_s)} ({code})"
    return kind.error(said, hint=_hint(row, kind, words, type, wait_s))


def codes_of(error: core.HttpResponseError) -> list[Found]:
    """Every code that the answer holds, the outermost first; those inside details, inner errors and messages
    that are JSON themselves follow."""
    if error.error is None:
        return []
    return list(_in_error(error.error, 0))


def status_of(error: core.HttpResponseError) -> int:
    """The answer's HTTP status, 0 where there was none; 200 for an operation that failed late."""
    return error.status_code or 0


def _row_of(code: str, words: str, type: str) -> Row | None:
    """Azure has no codes of their own for a size that it never had, and for the wrong kind of image."""
    if _QUOTA.search(words):
        return find_row("QuotaExceeded")
    if _GENERATION.search(words):
        return BAD_GENERATION
    if _NO_IMAGE.search(words):
        return find_row("ImageNotFound")
    if code in ("InvalidParameter", "BadRequest") and type and _BAD_TYPE.search(words):
        return BAD_TYPE
    return find_row(code)


def _quoted(row: Row, kind: Kind, words: str, wait_s: float | None) -> str:
    """What of Azure's own words belongs behind ours."""
    if row.kind == "rights":
        return f": {(_ACTION.findall(words) or ['unnamed'])[-1]}"  # a linked one stands last
    if row.kind == "rate":
        return "" if wait_s is None else f", throttled for {wait_s:g} s"
    if row.kind == "quota" and (said := _quota(words)):
        return f": {said}"
    words = shortened(words)
    return f"; Azure says: {words}" if kind.quotes and words else ""


def _quota(words: str) -> str:
    """The quota that was exceeded, its limit and use; "" where the words have another form."""
    name, limit = _QUOTA.search(words), _LIMIT.search(words)
    if not name or not limit:
        return ""
    usage, needed = _USAGE.search(words), _NEEDED.search(words)
    parts = [
        f"{name['family'] or name['old']}: the limit is {limit[1]}",
        usage and f"{usage[1]} in use",
        needed and f"{needed[1]} more needed",
    ]
    return ", ".join(filter(None, parts))


def _hint(row: Row, kind: Kind, words: str, type: str, wait_s: float | None) -> str:
    if row.kind == "rate" and wait_s is not None:
        return f"wait {wait_s:g} s, then try again"
    if kind.error is NotOffered and type and (warning := catalog.type_warning("azure", type)):
        return warning
    if found := _NAMESPACE.search(words):
        return f"have the subscription's owner run once: az provider register --namespace {found[1]}"
    return kind.hint or row.hint


def _telling(found: list[Found]) -> Found:
    """The code that says most: the first that we know and that wraps no other, else the first that wraps
    none, else the first."""
    for each in found:
        if each[0] not in WRAPPERS and find_row(each[0]):
            return each
    quotas = (each for each in found if _QUOTA.search(each[1]))
    plain = (each for each in found if each[0] and each[0] not in WRAPPERS)
    return next(quotas, None) or next(plain, None) or found[0]


def _in_error(error: Any, depth: int) -> Iterator[Found]:
    """Codes of an OData error as azure.core parsed it."""
    yield error.code or "", error.message or ""
    yield from _in_text(error.message or "", depth)
    if depth < DEEPEST:
        for detail in error.details or ():
            yield from _in_error(detail, depth + 1)
        yield from _in_json(error.innererror, depth + 1)


def _in_text(words: str, depth: int = 0) -> Iterator[Found]:
    """Codes in a message that is JSON itself, as a deployment's is."""
    if words.lstrip().startswith("{"):
        try:
            value = json.loads(words)
        except ValueError:
            return
        yield from _in_json(value, depth + 1)


def _in_json(value: Any, depth: int) -> Iterator[Found]:
    if depth > DEEPEST or not isinstance(value, Mapping):
        return
    if isinstance(value.get("code"), str):
        words = str(value.get("message") or "")
        yield value["code"], words
        yield from _in_text(words, depth)
    for name in ("error", "innererror"):
        yield from _in_json(value.get(name), depth + 1)
    details = value.get("details")
    for each in details if isinstance(details, list) else ():
        yield from _in_json(each, depth + 1)


def _azure_error(error: core.AzureError, *, region: str, type: str, what: str) -> CloudrunError:
    where = place("Azure", region=region, type=type, what=what)
    if isinstance(error, core.ServiceRequestError):
        return _unreachable(where, error)
    if isinstance(error, core.ServiceResponseError | core.IncompleteReadError):
        said = f"{where}: the connection broke before Azure answered: {shortened(error.message)}"
        if _method(error) in (*MAKERS, ""):
            return _lost(said)
        return ProviderError(said, hint="check the network, then give the same command again")
    if not isinstance(error, core.HttpResponseError):
        return ProviderError(f"{where}: {shortened(error.message)}", hint="check the command's values")
    found = codes_of(error)
    if isinstance(error, core.ClientAuthenticationError) and not found:
        return _login_error(where, error)
    return _refusal(error, found, region=region, type=type, what=what)


def _refusal(
    error: core.HttpResponseError, found: list[Found], *, region: str, type: str, what: str
) -> CloudrunError:
    """For an answer of Azure that says no."""
    status = status_of(error)
    code, words = _telling(
        found or [(OF_STATUS.get(status, ""), "" if status in OF_STATUS else error.message)]
    )
    if status == 429:
        code, words = "TooManyRequests", ""
    if status >= 500 and find_row(code) is None:
        code = OF_STATUS.get(status, "InternalServerError")
    told = error_for(code, words, region=region, type=type, what=what, wait_s=_wait_s(error))
    row = find_row(code)
    unsure = status >= 500 or status == 408
    if unsure and row and row.kind == "trouble" and _method(error) in MAKERS:
        return _lost(told.message)
    return told


def _lost(said: str) -> ConnectionLost:
    return ConnectionLost(
        f"{said}; whether it was done is not known",
        hint="give the same command again: it meets what is there; or run: cloudrun machines list",
    )


def _unreachable(where: str, error: core.AzureError) -> ProviderError:
    return ProviderError(
        f"{where}: Azure cannot be reached: {shortened(error.message)}",
        hint="check the network, HTTPS_PROXY, AZURE_AUTHORITY_HOST and CLOUDRUN_AZURE_ENDPOINT",
    )


def _login_error(where: str, error: core.ClientAuthenticationError) -> ProviderError:
    """No credentials, some that the login refused (its codes begin with AADSTS), or nobody who answers there:
    azure-identity tells all of them by the same error."""
    if found := _LOGIN_CODE.search(error.message):
        return Credentials(f"{where}: Azure refuses the login: {shortened(found[0])}", hint=LOGIN)
    if isinstance(error.__cause__, core.ServiceRequestError | core.ServiceResponseError):
        return _unreachable(where, error)
    return Credentials(f"{where}: there are no Azure credentials that work", hint=LOGIN)


def _method(error: core.AzureError) -> str:
    """GET, PUT and so on, of the request that went wrong; "" where that cannot be told."""
    holder = getattr(error, "response", None) or error.inner_exception
    request = getattr(holder, "request", None)
    return str(getattr(request, "method", None) or "")


def _wait_s(error: core.HttpResponseError) -> float | None:
    """How long Azure asks us to wait (Retry-After, or its own header in milliseconds)."""
    headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
    for name, unit_s in (("x-ms-retry-after-ms", 0.001), ("retry-after-ms", 0.001), ("Retry-After", 1.0)):
        try:
            return float(headers[name]) * unit_s
        except (KeyError, ValueError):  # a date: nobody needs it to the second
            continue
    return None
