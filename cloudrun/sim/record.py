"""Where a rehearsal cloud that is up says how to reach it, for other processes; without its machinery."""

from __future__ import annotations

import json
import shlex
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cloudrun.errors import ProviderError, UsageError
from cloudrun.locks import holding

FILE = "cloud.json"
REGION = "us-east-1"
POLL_S = 0.5  # machines here boot in a second
ANSWER_TIMEOUT_S = 30.0
# They would win over the keys below, or lead past them.
CLEARED = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_PROFILE",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_USERNAME",
    "AZURE_FEDERATED_TOKEN_FILE",
)
AWS, AZURE = CLOUDS = ("aws", "azure")
ENDED = ("terminated", "deleted")  # AWS's and Azure's word for a machine that is no more


@dataclass(frozen=True, slots=True)
class SimRecord:
    """One rehearsal cloud that is up."""

    folder: Path
    pid: int
    url: str
    ssh_port: int
    kind: str  # of its machines
    azure: Mapping[str, str] = field(default_factory=dict)  # what a process needs to use the Azure half
    packages: Mapping[str, str] = field(default_factory=dict)  # and the machines' repositories

    def save(self) -> None:
        draft = self.folder / f".{FILE}"
        draft.write_text(json.dumps({**asdict(self), "folder": str(self.folder)}))
        draft.replace(self.folder / FILE)

    def environment(self) -> dict[str, str]:
        """What a process needs to use it, and to keep its ledger apart from the real one."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CLOUDRUN_SIM": str(self.folder),
            "CLOUDRUN_HOME": str(self.folder / "home"),
            "CLOUDRUN_SSH_PORT": str(self.ssh_port),
            "CLOUDRUN_POLL_S": str(POLL_S),
            "CLOUDRUN_ADDRESS_URL": f"{self.url}/_sim/address",
            "CLOUDRUN_FRAMEWORKS": "as-found",  # a machine here runs this computer's own torch
            **self.packages,
            **self.azure,
        }

    def exports(self) -> list[str]:
        """The same as lines for a POSIX shell."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.environment().items()]
        return [*lines, f"unset {' '.join(CLEARED)}"]

    @property
    def azure_url(self) -> str:
        return self.azure.get("CLOUDRUN_AZURE_ENDPOINT", "")

    def instances(self) -> list[dict[str, Any]]:
        """Every machine that the clouds know of, with the cloud that has it. Raises ProviderError."""
        return [{**each, "cloud": cloud} for cloud in CLOUDS for each in self.ask("instances", cloud)]

    def ask(self, name: str, cloud: str = AWS) -> Any:
        """GET /_sim/name. Raises ProviderError."""
        return self._call(cloud, name, None)

    def tell(self, name: str, cloud: str = AWS, **values: object) -> None:
        """POST /_sim/name. Raises UsageError for what it does not accept, ProviderError without an answer."""
        self._call(cloud, name, json.dumps(values).encode())

    def _call(self, cloud: str, name: str, body: bytes | None) -> Any:
        url = f"{self.url if cloud == AWS else self.azure_url}/_sim/{name}"
        request = urllib.request.Request(  # noqa: S310  # loopback
            url,
            data=body,
            method="GET" if body is None else "POST",
            headers={"Content-Type": "application/json"},
        )
        direct = _direct(self.azure.get("REQUESTS_CA_BUNDLE", "") if cloud == AZURE else "", self.pid)
        try:
            with direct.open(request, timeout=ANSWER_TIMEOUT_S) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise UsageError(_message(error), hint="cloudrun sim status") from error
        except (OSError, ValueError) as error:
            raise ProviderError(
                f"the rehearsal cloud does not answer: {error}", hint="cloudrun sim down, then sim up"
            ) from error


def find_sim(folder: Path) -> SimRecord | None:
    """The rehearsal cloud of that folder, None where none is up."""
    if not (folder / FILE).is_file():
        return None
    with holding(lock_path(folder)) as free:
        if free:
            return None
    try:
        data: Mapping[str, Any] = json.loads((folder / FILE).read_text())
        return SimRecord(**{**data, "folder": folder})
    except (OSError, ValueError, TypeError):
        return None


def the_sim(folder: Path) -> SimRecord:
    """The rehearsal cloud of that folder. Raises UsageError where none is up."""
    found = find_sim(folder)
    if found is None:
        raise UsageError("no rehearsal cloud is up", hint="cloudrun sim up")
    return found


def lock_path(folder: Path) -> Path:
    """Held by the rehearsal cloud's process as long as it lives."""
    return folder / "cloud.lock"


@lru_cache(maxsize=8)
def _direct(authority: str, _pid: int) -> urllib.request.OpenerDirector:
    """Calls without a proxy. Kept for the rehearsal of that process, for reading its certificates takes
    20 ms of the processor: the next one in the same folder has others."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if authority:
        context = ssl.create_default_context(cafile=authority)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["message"])
    except (ValueError, KeyError, TypeError):
        return f"the rehearsal cloud answered {error.code}"
