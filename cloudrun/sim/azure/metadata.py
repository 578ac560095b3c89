"""What a machine reads about itself at 169.254.169.254, and there alone: metadata, scheduled events, a token.

For rehearsals Azure Resource Manager answers at the same address, so that a machine can deallocate itself
without reaching this computer: with the machine's token, and the rights that were assigned to it.
https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service, read 2026-11.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cloudrun.models import Market
from cloudrun.sim.azure.addresses import PublicAddresses
from cloudrun.sim.azure.events import Events
from cloudrun.sim.azure.life import Vm, interfaces_of
from cloudrun.sim.azure.routes import Route, Routes
from cloudrun.sim.azure.store import SUBSCRIPTION, World
from cloudrun.sim.azure.tokens import LIFE_S
from cloudrun.sim.azure.wire import JSON, ApiError, Body, Request, error_reply
from cloudrun.sim.spec import METADATA_ADDRESS, Answer, Respond

VERSIONS = ("2025-04-07", "2024-07-17", "2024-03-15")  # the newest ones, as its refusal names them
_ROOT = "/metadata/"


class Metadata:
    """Makes the service of each machine."""

    def __init__(self, world: World, events: Events) -> None:
        self._world = world
        self._events = events
        self._routes = Routes()

    def lend(self, routes: Iterable[Route]) -> None:
        """Calls of Azure Resource Manager that are answered there too."""
        self._routes.add(routes)

    def service(self, vm: Vm) -> Respond:
        def respond(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
            place = urlsplit(path)
            query = {name.lower(): value for name, value in parse_qsl(place.query)}
            if not place.path.startswith(_ROOT):
                return self._manage(method, place.path, query, headers, body)
            refusal = _refusal(headers, query)
            if refusal:
                return _answer(400, refusal)
            with self._world.lock:
                return self._read(vm, method, place.path.removeprefix(_ROOT).strip("/"), query, body)

        return respond

    def _read(self, vm: Vm, method: str, path: str, query: Mapping[str, str], body: bytes) -> Answer:
        if path == "scheduledevents":
            return self._scheduled(vm, method, body)
        if method != "GET":
            return _answer(405, {"error": "Method not allowed"})
        if path == "identity/oauth2/token":
            return self._token(vm, query)
        if path == "instance" or path.startswith("instance/"):
            return _part(self._instance(vm), path.split("/")[1:], query)
        return _answer(404, {"error": "Not found"})

    def _scheduled(self, vm: Vm, method: str, body: bytes) -> Answer:
        if method == "GET":
            return _answer(200, self._events.document(vm))
        try:
            ids = [str(each["EventId"]) for each in json.loads(body)["StartRequests"]]
        except (ValueError, KeyError, TypeError):
            return _answer(400, {"error": "Bad request. StartRequests with an EventId each are expected."})
        self._events.acknowledge(vm, ids)
        return 200, b"", {}

    def _token(self, vm: Vm, query: Mapping[str, str]) -> Answer:
        principal = str((vm.resource.body.get("identity") or {}).get("principalId", ""))
        if not principal:
            return _answer(400, {"error": "invalid_request", "error_description": "Identity not found"})
        if not query.get("resource"):
            description = "Required query variable 'resource' is missing"
            return _answer(400, {"error": "invalid_request", "error_description": description})
        return _answer(
            200,
            {
                "access_token": self._world.tokens.issue(principal),
                "client_id": principal,
                "expires_in": str(LIFE_S),
                "ext_expires_in": str(LIFE_S),
                "resource": query["resource"],
                "token_type": "Bearer",
            },
        )

    def _instance(self, vm: Vm) -> Body:
        return {"compute": _compute(vm), "network": {"interface": self._interfaces(vm)}}

    def _interfaces(self, vm: Vm) -> list[Body]:
        shown = []
        for interface in interfaces_of(self._world, vm.resource):
            addresses = []
            for each in interface.properties.get("ipConfigurations") or []:
                public = self._world.get((each["properties"].get("publicIPAddress") or {}).get("id", ""))
                dynamic = public is not None and isinstance(public.kind, PublicAddresses)
                addresses.append(
                    {
                        "privateIpAddress": each["properties"].get("privateIPAddress", ""),
                        "publicIpAddress": public.properties.get("ipAddress", "")
                        if public and dynamic
                        else "",
                    }
                )
            shown.append({"ipv4": {"ipAddress": addresses, "subnet": []}, "ipv6": {"ipAddress": []}})
        return shown

    def _manage(
        self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """A call of Azure Resource Manager, judged by its token."""
        request = Request(
            method=method,
            path=path,
            query=query,
            headers=dict(headers),
            body=json.loads(body) if body.strip() else None,
            environ={"HTTP_HOST": METADATA_ADDRESS},
        )
        try:
            route = self._routes.find(request)
            request.principal = self._world.tokens.principal(request)
            with self._world.lock:
                self._world.authorization.check(request.principal, request.operation, request.path)
                reply = route.handler(request)
        except ApiError as error:
            reply = error_reply(error)
        return reply.status, reply.content(), {"Content-Type": JSON, **reply.headers}


def _refusal(headers: Mapping[str, str], query: Mapping[str, str]) -> Body:
    """Why it does not answer at all; {} where it does."""
    if headers.get("metadata", "").lower() != "true" or "x-forwarded-for" in headers:
        return {"error": "Bad request. Required metadata header not specified"}
    if not query.get("api-version"):
        return {
            "error": "Bad request. api-version is invalid or was not specified in the request. For more "
            "information refer to aka.ms/azureimds",
            "newest-versions": list(VERSIONS),
        }
    return {}


def _part(document: Body, path: list[str], query: Mapping[str, str]) -> Answer:
    """The whole, or a part that the path names; a single value with format=text as text."""
    found: Any = document
    for name in path:
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return _answer(404, {"error": "Not found"})
    if isinstance(found, str) or query.get("format") == "text":
        return 200, str(found).encode(), {"Content-Type": "text/plain; charset=utf-8"}
    return _answer(200, found)


def _compute(vm: Vm) -> Body:
    """Every value is a text, one that is not there an empty one."""
    resource, properties = vm.resource, vm.resource.properties
    profile, storage = properties.get("osProfile") or {}, properties["storageProfile"]
    image, os_disk = storage.get("imageReference") or {}, storage["osDisk"]
    linux = profile.get("linuxConfiguration") or {}
    spot = vm.market == Market.SPOT
    return {
        "azEnvironment": "AzurePublicCloud",
        "customData": "",
        "evictionPolicy": str(properties.get("evictionPolicy", "")) if spot else "",
        "isHostCompatibilityLayerVm": "false",
        "licenseType": "",
        "location": resource.location,
        "name": resource.name,
        "offer": image.get("offer", ""),
        "osProfile": {
            "adminUsername": profile.get("adminUsername", ""),
            "computerName": profile.get("computerName", ""),
            "disablePasswordAuthentication": str(linux.get("disablePasswordAuthentication", False)).lower(),
        },
        "osType": os_disk.get("osType", "Linux"),
        "placementGroupId": "",
        "plan": {"name": "", "product": "", "publisher": ""},
        "platformFaultDomain": "0",
        "platformUpdateDomain": "0",
        "priority": "Spot" if spot else str(properties.get("priority", "")),
        "provider": "Microsoft.Compute",
        "publicKeys": [
            {"keyData": each.get("keyData", ""), "path": each.get("path", "")}
            for each in (linux.get("ssh") or {}).get("publicKeys") or []
        ],
        "publisher": image.get("publisher", ""),
        "resourceGroupName": resource.group,
        "resourceId": resource.id,
        "sku": image.get("sku", ""),
        "storageProfile": {
            "dataDisks": [],
            "imageReference": {
                "id": "",
                **{name: image.get(name, "") for name in ("offer", "publisher", "sku", "version")},
            },
            "osDisk": {
                "caching": os_disk.get("caching", ""),
                "createOption": os_disk.get("createOption", ""),
                "diskSizeGB": str(os_disk.get("diskSizeGB", "")),
                "managedDisk": {
                    name: str((os_disk.get("managedDisk") or {}).get(name, ""))
                    for name in ("id", "storageAccountType")
                },
                "name": os_disk.get("name", ""),
                "osType": os_disk.get("osType", "Linux"),
            },
        },
        "subscriptionId": SUBSCRIPTION,
        "tags": ";".join(f"{name}:{value}" for name, value in resource.tags.items()),
        "tagsList": [{"name": name, "value": value} for name, value in resource.tags.items()],
        "userData": "",
        "version": image.get("exactVersion", ""),
        "vmId": resource.guid,
        "vmScaleSetName": "",
        "vmSize": vm.size.name,
        "zone": vm.zone,
    }


def _answer(status: int, content: Any) -> Answer:
    return status, json.dumps(content).encode(), {"Content-Type": JSON}
