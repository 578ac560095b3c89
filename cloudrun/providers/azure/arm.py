"""Azure Resource Manager's two-step calls: asked for and answered at once, done a moment later.

Nothing here waits but `settled`, for what takes a moment and is needed by the next step. All bodies are as
on the wire: the SDK's models are of many versions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudrun.errors import ProviderError
from cloudrun.providers.azure.errors import error_for, mapped
from cloudrun.providers.azure.session import Session

DONE, FAILED = "Succeeded", ("Failed", "Canceled")
USUAL_WAIT_S = 1.0  # where Azure names no time: it takes seconds to make a network or an address
LONGEST_S = 300.0  # past this, something is wrong at Azure's side
IDS = "/subscriptions/{subscription}/resourceGroups/{group}/providers/{kind}/{name}"

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Begun:
    """The first answer to a call that Azure goes on with."""

    status: int
    body: Body
    ask: str  # address that tells how it goes on; "" where it is done
    after_s: float  # how long to wait before each look

    @property
    def made(self) -> bool:
        """Whether there was none before."""
        return self.status == 201


def begin(call: Callable[..., Any], *arguments: Any, **more: Any) -> Begun:
    """Ask for it and return at once. `call` is one of the SDK's begin_ methods."""
    begun: Begun = call(*arguments, polling=False, cls=_begun, **more).result()
    return begun


def shown(call: Callable[..., Any], *arguments: Any, **more: Any) -> Body:
    """The body that the call answers with."""
    body: Body = call(*arguments, cls=lambda response, *_: response.http_response.json(), **more)
    return body


def shown_or_none(call: Callable[..., Any], *arguments: Any, **more: Any) -> Body | None:
    """As `shown`; None where there is no such thing, nor its group."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return shown(call, *arguments, **more)
    except ResourceNotFoundError:
        return None


def settled(
    session: Session, client: Any, begun: Begun, look: Callable[[], Body], *, region: str, what: str
) -> Body:
    """Wait until it is done; what it is then. Looks at once, then as often as Azure says, but at least every
    Settings.poll_s. Raises what Azure says where it failed."""
    body, give_up_at = begun.body, time.monotonic() + LONGEST_S
    wait_s = 0.0
    while (state := state_of(body)) != DONE:
        if state in FAILED:
            raise why_failed(client, begun.ask, region=region, what=what)
        if time.monotonic() > give_up_at:
            raise ProviderError(
                f"{what} in {region}: Azure has not done it within {LONGEST_S / 60:.0f} minutes",
                hint="try again later; https://azure.status.microsoft shows what Azure knows of it",
            )
        time.sleep(wait_s)
        wait_s = min(begun.after_s, session.settings.poll_s)
        body = look()
    return body


def gone(session: Session, begun: Begun, look: Callable[[], Body | None]) -> None:
    """Wait until there is none any more, as `settled` waits. Raises ProviderError where it stays."""
    give_up_at, wait_s = time.monotonic() + LONGEST_S, 0.0
    while (body := look()) is not None:
        if state_of(body) in FAILED or time.monotonic() > give_up_at:
            raise ProviderError(
                f"Azure does not delete {body.get('name')}",
                hint="look at it in Azure's portal, then try again",
            )
        time.sleep(wait_s)
        wait_s = min(begun.after_s, session.settings.poll_s)


def why_failed(client: Any, ask: str, *, region: str, what: str, type: str = "") -> Exception:
    """The error of ours for an operation that failed late, as Azure tells it there."""
    from azure.core.rest import HttpRequest

    if not ask:
        return error_for("", "it failed", region=region, type=type, what=what)
    with mapped(region=region, type=type, what=what):
        answer = client.send_request(HttpRequest("GET", ask))
        answer.raise_for_status()
    error = answer.json().get("error") or {}
    return error_for(
        str(error.get("code", "")), str(error.get("message", "")), region=region, type=type, what=what
    )


def state_of(body: Body) -> str:
    """Its provisioning state: Succeeded, Failed, Creating, Updating, Deleting."""
    return str(body.get("properties", {}).get("provisioningState", ""))


def id_of(session: Session, group: str, kind: str, name: str) -> str:
    """The id of a resource; kind is e.g. Microsoft.Network/virtualNetworks."""
    return IDS.format(subscription=session.subscription, group=group, kind=kind, name=name)


def _begun(response: Any, *_: Any) -> Begun:
    answer = response.http_response
    headers: Mapping[str, str] = answer.headers
    return Begun(
        status=int(answer.status_code),
        body=answer.json() if answer.text() else {},
        ask=headers.get("Azure-AsyncOperation") or headers.get("Location") or "",
        after_s=_wait_s(headers),
    )


def _wait_s(headers: Mapping[str, str]) -> float:
    for name, unit_s in (("x-ms-retry-after-ms", 0.001), ("Retry-After", 1.0)):
        try:
            return float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
    return USUAL_WAIT_S
