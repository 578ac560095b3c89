"""What the ARM double makes of any call: its record, faults, throttling, lost answers, steering."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arm_help import REGION, Plain
from quick_azure import QUICK

from cloudrun.sim.azure import AzureDouble

ADDRESS = {
    "location": REGION,
    "sku": {"name": "Standard"},
    "properties": {"publicIPAllocationMethod": "Static"},
}
WRITE = "Microsoft.Network/publicIPAddresses/write"
GROUPS = "Microsoft.Resources/subscriptions/resourceGroups"


@pytest.fixture
def double(tmp_path: Path) -> Iterator[AzureDouble]:
    with AzureDouble(folder=tmp_path, delay_s=QUICK) as made:
        yield made


@pytest.fixture
def plain(double: AzureDouble) -> Iterator[Plain]:
    with closing(Plain(double)) as made:
        yield made


def test_calls_are_recorded_by_the_right_that_they_take(double: AzureDouble, plain: Plain) -> None:
    address = f"{plain.group('g', 'westus')}/providers/Microsoft.Network/publicIPAddresses/a"
    plain("PUT", address, ADDRESS)
    plain("GET", address)
    plain("GET", f"{address}b")
    plain("GET", "/nowhere")
    assert [
        (call.operation, call.method, call.region, call.status, call.code) for call in double.calls()
    ] == [
        (f"{GROUPS}/write", "PUT", "westus", 201, ""),
        (WRITE, "PUT", REGION, 201, ""),
        ("Microsoft.Network/publicIPAddresses/read", "GET", REGION, 200, ""),
        ("Microsoft.Network/publicIPAddresses/read", "GET", "westus", 404, "ResourceNotFound"),
    ]
    double.forget_calls()
    assert double.calls() == []


def test_a_fault_strikes_its_calls_in_its_region(double: AzureDouble, plain: Plain) -> None:
    place = f"{plain.group('g')}/providers/Microsoft.Network/publicIPAddresses"
    double.fault(WRITE.lower(), "InternalServerError", region=REGION, skip=1, times=2)
    tried = [plain("PUT", f"{place}/a{at}", ADDRESS).status for at in range(4)]
    assert tried == [201, 500, 500, 201]
    double.fault(WRITE, "Conflict", message="told so", region="westus")
    assert plain("PUT", f"{place}/b", ADDRESS).status == 201
    told = plain("PUT", f"{place}/c", {**ADDRESS, "location": "westus"})
    assert (told.status, told.body["error"]) == (409, {"code": "Conflict", "message": "told so"})
    double.fault("*", "InternalServerError", times=None, every=2)
    assert [plain("GET", place).status for _ in range(4)] == [200, 500, 200, 500]
    double.clear_faults()
    assert [plain("GET", place).status for _ in range(2)] == [200, 200]


def test_a_late_fault_lets_the_operation_fail(double: AzureDouble, plain: Plain) -> None:
    address = f"{plain.group('g')}/providers/Microsoft.Network/publicIPAddresses/a"
    double.fault(WRITE, "InternalServerError", late=True)
    answer = plain("PUT", address, ADDRESS)
    assert answer.status == 201
    done = plain.settle(answer)
    assert (done["status"], done["error"]["code"]) == ("Failed", "InternalServerError")
    assert plain("GET", address).body["properties"]["provisioningState"] == "Failed"
    assert plain.put(address, ADDRESS)["properties"]["ipAddress"]
    double.fault("Microsoft.Network/publicIPAddresses/delete", "InternalServerError", late=True)
    assert plain.settle(plain("DELETE", address))["status"] == "Failed"
    assert plain("GET", address).body["properties"]["provisioningState"] == "Succeeded"


def test_throttled_calls_are_told_when_to_come_back(double: AzureDouble, plain: Plain) -> None:
    double.throttle(retry_after_s=3)
    answer = plain("GET", f"{plain.subscription}/resourceGroups")
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "TooManyRequests", "3")
    assert plain("GET", f"{plain.subscription}/resourceGroups").status == 200


def test_a_call_whose_answer_is_lost_was_done(double: AzureDouble, plain: Plain) -> None:
    double.fault(f"{GROUPS}/write", lose_answer=True)
    place = f"{plain.subscription}/resourceGroups/g"
    with pytest.raises(OSError):
        plain("PUT", place, {"location": REGION})
    plain.line.close()
    assert plain("GET", place).status == 200


@pytest.mark.parametrize(
    "wrong",
    [
        *({}, {"code": "X", "times": 0}, {"code": "X", "every": 0}),
        *({"lose_answer": True, "late": True}, {"code": "X", "zone": "1"}),
    ],
)
def test_faults_that_make_no_sense_are_refused(double: AzureDouble, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        double.fault(WRITE, **wrong)


def test_calls_can_take_their_time(tmp_path: Path) -> None:
    with (
        AzureDouble(folder=tmp_path, delay_s=replace(QUICK, call_s=0.2)) as slow,
        closing(Plain(slow)) as plain,
    ):
        started = time.monotonic()
        plain("GET", f"{plain.subscription}/resourceGroups")
        assert time.monotonic() - started >= 0.2


def test_other_processes_steer_it_over_https(double: AzureDouble, plain: Plain) -> None:
    told = {"operation": f"{GROUPS}/read", "code": "InternalServerError"}
    assert plain("POST", "/_sim/fault", told).body == {}
    assert plain("GET", f"{plain.subscription}/resourceGroups").status == 500
    (call,) = plain("GET", "/_sim/calls").body
    assert (call["operation"], call["status"], call["linked"]) == (f"{GROUPS}/read", 500, [])
    assert plain("POST", "/_sim/allow", {"operations": []}).status == 200
    assert plain("GET", f"{plain.subscription}/resourceGroups").status == 403
    assert plain("POST", "/_sim/allow", {"operations": None}).status == 200
    assert plain("GET", "/_sim/instances").body == []


@pytest.mark.parametrize(
    ("name", "told", "status", "said"),
    [
        ("fault", {"operation": "x"}, 400, "needs a code"),
        ("fault", {"operation": "x", "colour": "blue"}, 400, "colour"),
        ("fault", ["x"], 400, "JSON object"),
        ("preempt", {"instance_id": "x"}, 400, "no instance"),
        ("set-spot-price", {"type": "Standard_NC6", "region": REGION, "usd": "much"}, 400, ""),
        ("explode", {}, 404, "known: address"),
    ],
)
def test_mistakes_in_steering_are_explained(
    plain: Plain, name: str, told: Any, status: int, said: str
) -> None:
    answer = plain("POST", f"/_sim/{name}", told)
    assert answer.status == status
    assert said in answer.body["message"]


def test_it_serves_again_after_it_was_stopped(tmp_path: Path) -> None:
    double = AzureDouble(folder=tmp_path, delay_s=QUICK)
    for _ in range(2):
        with double, closing(Plain(double)) as plain:
            assert plain("GET", f"{plain.subscription}/resourceGroups").body == {"value": []}
            plain.group("g")
