"""Evictions on the double: with notice and without, deallocated or deleted, by hand, by room, by price."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure_vm_help import GROUP, NEW_TYPE, SPOT, TYPE, Subscription, refused, subscription
from waiting import until

DELETE = {**SPOT, "evictionPolicy": "Delete"}


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Subscription]:
    with subscription(tmp_path) as made:
        yield made


def state(account: Subscription, id: str) -> str:
    [found] = [each for each in account.double.instances() if each["id"] == id]
    return str(found["state"])


def test_an_evicted_machine_is_deallocated_and_keeps_its_disk(account: Subscription) -> None:
    made = account.put("m", **SPOT)
    account.double.preempt(made.id, notice_s=0)
    account.wait_power("m", "deallocated")
    assert account.statuses("m")[0] == "ProvisioningState/succeeded"
    assert account.compute.disks.get(GROUP, "m-disk").disk_state == "Reserved"
    account.do("m", "start")
    assert account.power("m") == "running"


def test_an_evicted_machine_is_deleted_where_its_policy_says_so(account: Subscription) -> None:
    made = account.put("m", **DELETE)
    account.double.preempt(made.id, notice_s=0)
    until(account.left, lambda found: found == set())
    assert state(account, made.id) == "deleted"


def test_the_rehearsal_may_choose_what_becomes_of_it(account: Subscription) -> None:
    made = account.put("m", **DELETE)
    account.double.preempt(made.id, notice_s=0, action="Deallocate")
    account.wait_power("m", "deallocated")


def test_its_room_is_somebody_elses_then(account: Subscription) -> None:
    account.double.set_capacity(TYPE, count=1)
    made = account.put("m", **SPOT)
    account.double.preempt(made.id, notice_s=0)
    account.wait_power("m", "deallocated")
    with refused("OverconstrainedAllocationRequest", 200):
        account.do("m", "start")


def test_notice_comes_first(account: Subscription) -> None:
    made = account.put("m", **SPOT)
    account.double.preempt(made.id, notice_s=3600)
    assert [each["notice"] for each in account.double.instances()] == ["Preempt"]
    assert account.power("m") == "running"
    later = account.put("later", **SPOT)
    began = time.monotonic()
    account.double.preempt(later.id, notice_s=0.5)
    account.wait_power("later", "deallocated")
    assert time.monotonic() - began >= 0.5
    assert [each["notice"] for each in account.double.instances()] == ["Preempt", ""]


def test_a_change_of_tags_does_not_stop_an_eviction(account: Subscription) -> None:
    made = account.put("m", **SPOT)
    account.double.preempt(made.id, notice_s=0.4)
    account.compute.virtual_machines.begin_update(GROUP, "m", {"tags": {"a": "b"}}).result()
    account.wait_power("m", "deallocated")


def test_a_machine_that_was_switched_off_is_not_evicted_any_more(account: Subscription) -> None:
    made = account.put("m", **SPOT)
    account.double.preempt(made.id, notice_s=0.5)
    account.do("m", "deallocate")
    account.do("m", "start")
    later = account.put("later", **SPOT)
    account.double.preempt(later.id, notice_s=0.5)
    account.wait_power("later", "deallocated")
    assert account.power("m") == "running"


def test_simulate_eviction_is_azures_own_way(account: Subscription) -> None:
    account.put("m", **SPOT)
    account.put("n")
    account.compute.virtual_machines.simulate_eviction(GROUP, "m")
    assert account.double.instances()[0]["notice"] == "Preempt"
    with refused("OperationNotAllowed"):
        account.compute.virtual_machines.simulate_eviction(GROUP, "n")


def test_a_price_above_the_maximum_evicts(account: Subscription) -> None:
    cheap = account.put("cheap", **{**SPOT, "billingProfile": {"maxPrice": 0.2}})
    any_price = account.put("any", **SPOT)
    other = account.put("other", size=NEW_TYPE, **{**SPOT, "billingProfile": {"maxPrice": 0.2}})
    account.double.set_spot_price(TYPE, "eastus", "0.3")
    notices = {each["id"]: each["notice"] for each in account.double.instances()}
    assert notices == {cheap.id: "Preempt", any_price.id: "", other.id: ""}
    account.do("cheap", "deallocate")
    with refused("SpotPriceGreaterThanProvidedMaxPrice", match="'0.2 USD' is lower.*'0.3 USD'"):
        account.do("cheap", "start")
    change = {"properties": {"billingProfile": {"maxPrice": 0.5}}}
    account.compute.virtual_machines.begin_update(GROUP, "cheap", change).result()
    account.do("cheap", "start")
    with refused("MaxPriceUpdateRequiresVMToBeDeallocated"):
        account.compute.virtual_machines.begin_update(GROUP, "cheap", change | {
            "properties": {"billingProfile": {"maxPrice": 0.6}}
        }).result()  # fmt: skip


def test_only_running_spot_is_evicted(account: Subscription) -> None:
    made, spot = account.put("m"), account.put("s", **SPOT)
    with pytest.raises(ValueError, match="on-demand"):
        account.double.preempt(made.id)
    with pytest.raises(ValueError, match="known: Deallocate, Delete"):
        account.double.preempt(spot.id, action="Hibernate")
    account.do("s", "deallocate")
    with pytest.raises(ValueError, match="deallocated"):
        account.double.preempt(spot.id)
