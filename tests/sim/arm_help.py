"""Calls to a running ARM double as they stand on the wire."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from waiting import until

from cloudrun.sim.azure import AzureDouble

REGION = "eastus"
SCOPE = "https://management.azure.com/.default"
DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in lower case, body is None where there was none."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


class Plain:
    """Calls as they stand on the wire, with a token; one connection for all."""

    def __init__(self, double: AzureDouble) -> None:
        self.environment = double.environment()
        self.subscription = f"/subscriptions/{self.environment['AZURE_SUBSCRIPTION_ID']}"
        context = ssl.create_default_context(cafile=str(double.ca_path))
        self.line = HTTPSConnection(urlsplit(double.url).netloc, context=context, timeout=DEADLINE_S)
        self.token = ""
        self.token = self.login()

    def login(self) -> str:
        told = {
            "client_id": self.environment["AZURE_CLIENT_ID"],
            "client_secret": self.environment["AZURE_CLIENT_SECRET"],
            "grant_type": "client_credentials",
            "scope": SCOPE,
        }
        place = f"/{self.environment['AZURE_TENANT_ID']}/oauth2/v2.0/token"
        answer = self.send("POST", place, urlencode(told).encode(), "application/x-www-form-urlencoded")
        return str(answer.body["access_token"])

    def __call__(self, method: str, path: str, body: Any = None, *, version: str = "2025-01-01") -> Answer:
        """A call of the API. A path without an api-version gets one."""
        if "api-version=" not in path:
            path += f"{'&' if '?' in path else '?'}api-version={version}"
        content = None if body is None else json.dumps(body).encode()
        return self.send(method, path, content, "application/json")

    def group(self, name: str, region: str = REGION) -> str:
        """A resource group, made; its path."""
        place = f"{self.subscription}/resourceGroups/{name}"
        assert self("PUT", place, {"location": region}).status in (200, 201)
        return place

    def settle(self, answer: Answer) -> Any:
        """Wait for an operation; the last answer's body."""
        assert answer.status in (200, 201, 202), answer
        if "azure-asyncoperation" in answer.headers:
            place = path_of(answer.headers["azure-asyncoperation"])
            return until(lambda: self("GET", place).body, lambda body: body["status"] != "InProgress")
        place = path_of(answer.headers["location"])
        return until(lambda: self("GET", place), lambda found: found.status != 202).body

    def put(self, path: str, body: Any) -> Any:
        """PUT, waited for; the resource as it is then."""
        done = self.settle(self("PUT", path, body))
        assert done["status"] == "Succeeded", done
        return self("GET", path).body

    def close(self) -> None:
        self.line.close()

    def send(self, method: str, path: str, content: bytes | None, kind: str) -> Answer:
        headers = {"Content-Type": kind, "Authorization": f"Bearer {self.token}"}
        self.line.request(method, path, content, headers)
        answer = self.line.getresponse()
        raw = answer.read()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, names, json.loads(raw) if raw else None)


def path_of(url: str) -> str:
    """Path and query of an address."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"
