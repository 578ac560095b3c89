"""The double against what Azure answered: every recorded request, sent again in its order.

Equal have to be the status, the headers that say where to ask about an operation, and the names at the
top of the body. What a recording leaves unsaid is made first: its resource group, and resources that it
uses and that were there before it began.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from arm_help import Answer, Plain, path_of
from quick_azure import QUICK
from waiting import until

from cloudrun.sim.azure import AzureDouble

FOLDER = Path(__file__).with_name("azure_recordings")
RECORDINGS = sorted(path.stem for path in FOLDER.glob("*.json"))
ZEROS = "00000000-0000-0000-0000-000000000000"
ASKING = ("azure-asyncoperation", "location", "azure-asyncnotification")
INTERFACE = re.compile(r'/resourceGroups/([^/"]+)/providers/Microsoft.Network/networkInterfaces/([^/"]+)"')
# Of bodies, there or not by what no recording says: tags that the account's own policies add; an extension
# that was put on a machine by calls which are not recorded.
UNSAID = {"tags", "extensions", "resources"}
OPERATION = re.compile(r"/(DiskO|o)perations/([0-9a-f-]{36})|/operationresults/([^?]+)")


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Plain]:
    with AzureDouble(folder=tmp_path, delay_s=QUICK) as double, closing(Plain(double)) as made:
        yield made


def test_every_kind_of_answer_is_recorded() -> None:
    seen = {
        (exchange["request"]["method"], exchange["response"]["status"])
        for name in RECORDINGS
        for exchange in load(name)
    }
    assert len(RECORDINGS) == 12
    assert {("PUT", 201), ("PUT", 202), ("PUT", 200), ("POST", 409), ("HEAD", 404), ("GET", 202)} <= seen


@pytest.mark.parametrize("name", RECORDINGS)
def test_recording(name: str, plain: Plain) -> None:
    replay = Replay(plain)
    replay.prepare(load(name))
    differing = [
        f"{exchange['n']} {exchange['request']['method']} {path}: {difference}"
        for exchange in load(name)
        for path, difference in replay.differences(exchange)
    ]
    assert differing == []


def test_the_comparison_sees_a_difference(plain: Plain) -> None:
    exchanges = load("publicip-create-list-delete")
    exchanges[0]["response"]["status"] = 200
    del exchanges[0]["response"]["headers"]["azure-asyncoperation"]
    exchanges[0]["response"]["body"]["colour"] = "blue"
    replay = Replay(plain)
    replay.prepare(exchanges)
    found = [difference for _, difference in replay.differences(exchanges[0])]
    assert found == [
        "status 201, not 200",
        "header azure-asyncoperation: True, not False",
        "body without colour",
    ]


class Replay:
    """One recording, request by request. Ids of operations are those that the double gave."""

    def __init__(self, plain: Plain) -> None:
        self.plain = plain
        self._operations: dict[str, str] = {}  # recorded -> ours

    def prepare(self, exchanges: list[dict[str, Any]]) -> None:
        """Make what was there before the recording began."""
        addresses = [path_of(exchange["request"]["uri"]) for exchange in exchanges]
        if not any("/resourcegroups/test" in each for each in addresses):
            for group, region in sorted(groups_of(exchanges)):
                self.plain.group(group, region)
        elif exchanges[0]["request"]["method"] == "PUT":
            self.plain.group("one", "westus")  # the account had others: two make the first page of two
            self.plain.group("two", "westus")
        for group, interface, region in sorted(missing_interfaces(exchanges)):
            self._make_interface(group, interface, region)

    def differences(self, exchange: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """What is not as recorded, with the path of the call."""
        recorded = exchange["response"]
        request = exchange["request"]
        path = self._path(request["uri"])
        ours = self._send(request, path, recorded)
        self._remember(recorded, ours)
        if ours.status != recorded["status"]:
            yield path, f"status {ours.status}, not {recorded['status']}"
        for header in ASKING:
            if (header in ours.headers) != (header in recorded["headers"]):
                yield path, f"header {header}: {header in ours.headers}, not {header in recorded['headers']}"
        yield from ((path, each) for each in _bodies(recorded.get("body"), ours.body))

    def _send(self, request: dict[str, Any], path: str, recorded: dict[str, Any]) -> Answer:
        """The call; a look at an operation is repeated until it is as far as it was in the recording."""
        body = json.loads(self._ours(json.dumps(request["body"])))

        def send() -> Answer:
            return self.plain(request["method"], path, body)

        if not OPERATION.search(path):
            return send()
        if _going(recorded["status"], recorded.get("body")):
            return send()
        return until(send, lambda found: not _going(found.status, found.body))

    def _path(self, uri: str) -> str:
        path = self._ours(path_of(uri))
        for recorded, ours in self._operations.items():
            path = path.replace(recorded, ours)
        return path

    def _ours(self, text: str) -> str:
        return text.replace(ZEROS, self.plain.environment["AZURE_SUBSCRIPTION_ID"])

    def _remember(self, recorded: dict[str, Any], ours: Answer) -> None:
        for header in ("azure-asyncoperation", "location"):
            if header in recorded["headers"] and header in ours.headers:
                theirs = OPERATION.search(recorded["headers"][header])
                mine = OPERATION.search(ours.headers[header])
                if theirs and mine:
                    self._operations[theirs[2] or theirs[3]] = mine[2] or mine[3]

    def _make_interface(self, group: str, name: str, region: str) -> None:
        home = f"{self.plain.subscription}/resourceGroups/{group}/providers/Microsoft.Network"
        subnet = {"name": "s", "properties": {"addressPrefix": "10.1.0.0/24"}}
        network = {
            "location": region,
            "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}, "subnets": [subnet]},
        }
        made = self.plain.put(f"{home}/virtualNetworks/before-{name}", network)
        reference = {"id": made["properties"]["subnets"][0]["id"]}
        configuration = {"name": "c", "properties": {"subnet": reference}}
        interface = {"location": region, "properties": {"ipConfigurations": [configuration]}}
        self.plain.put(f"{home}/networkInterfaces/{name}", interface)


def load(name: str) -> list[dict[str, Any]]:
    exchanges: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())["exchanges"]
    return exchanges


def groups_of(exchanges: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Groups in which a recording makes something, with the region of the first."""
    found = {}
    for exchange in exchanges:
        group = re.search(r"/resourceGroups/([^/?]+)/", exchange["request"]["uri"])
        region = (exchange["request"]["body"] or {}).get("location")
        if group and region:
            found.setdefault(group[1], region)
    return set(found.items())


def missing_interfaces(exchanges: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Network interfaces that a recorded machine has and no recorded call makes: group, name, region."""
    puts = [each["request"] for each in exchanges if each["request"]["method"] == "PUT"]
    made = {urlsplit(each["uri"]).path.rpartition("/")[2] for each in puts}
    return {
        (group, name, put["body"]["location"])
        for put in puts
        for group, name in INTERFACE.findall(json.dumps(put["body"]))
        if name not in made
    }


def _going(status: int, body: Any) -> bool:
    """Whether this says of an operation that it is not done."""
    return status == 202 or (isinstance(body, dict) and body.get("status") == "InProgress")


def _bodies(recorded: Any, ours: Any) -> Iterator[str]:
    if not isinstance(recorded, dict) or not isinstance(ours, dict):
        if type(recorded) is not type(ours):
            yield f"body {ours!r}, not {recorded!r}"
        return
    for name in sorted(set(recorded) - set(ours) - UNSAID):
        yield f"body without {name}"
    for name in sorted(set(ours) - set(recorded) - UNSAID):
        yield f"body with {name}"
