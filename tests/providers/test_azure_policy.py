"""provisioning/policies/azure-role.json: all that the provider does works with it, and without any one action
of it something does not, with a message that names what is missing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure_help import CPU, HERE, ON_DEMAND, REGION, SPOT, STACK, TYPE, Cloud, open_cloud, spec
from policy_cases import Part, Played, broken_without, outcomes_of, play_all, used_by
from quick_azure import QUICK
from test_azure_leftovers import make_disk, make_team
from waiting import until

from cloudrun.assets import provisioning_dir
from cloudrun.errors import CloudrunError
from cloudrun.images import ImageState, OwnImage
from cloudrun.models import Guard, LaunchOptions, Machine, MachineState, OnPreempt
from cloudrun.providers.azure import AzureProvider, identity
from cloudrun.providers.azure.codes import ROLE
from cloudrun.providers.base import Need
from cloudrun.providers.tags import image_tags
from cloudrun.sim.azure.calls import Call

CLOSED = "westus2"  # a region where the subscription may not have the size
DENIED = ("AuthorizationFailed", "LinkedAuthorizationFailed")
HASH = "1" * 64
FAMILY = "Standard NCASv3_T4 Family"
TEAM = LaunchOptions(resource_group="team")
# The double has no snapshots, so nothing on it can need this right.
NOT_REHEARSED = ["Microsoft.Compute/snapshots/delete"]
# Without these it goes on, poorer: plans use what is shipped, machines can only shut down inside.
DISPENSABLE = (
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Authorization/roleAssignments/write",
    "Microsoft.Authorization/roleDefinitions/write",
    "Microsoft.Compute/locations/usages/read",
    "Microsoft.Compute/skus/read",
)
DOCUMENT: dict[str, Any] = json.loads((provisioning_dir() / "policies" / "azure-role.json").read_text())
ACTIONS: list[str] = DOCUMENT["Actions"]
REHEARSED = [action for action in ACTIONS if action not in NOT_REHEARSED]


# --- the text ---


def test_it_is_a_custom_role_as_the_command_line_takes_it() -> None:
    assert set(DOCUMENT) == {"Name", "IsCustom", "Description", "Actions", "NotActions", "AssignableScopes"}
    assert DOCUMENT["IsCustom"] is True
    assert DOCUMENT["NotActions"] == []


def test_no_action_is_a_pattern_and_they_are_in_order() -> None:
    assert not [action for action in ACTIONS if "*" in action]
    assert sorted(set(ACTIONS)) == ACTIONS


def test_it_gives_at_least_what_machines_get() -> None:
    assert set(identity.ACTIONS) <= set(ACTIONS)


def test_machines_are_never_only_switched_off() -> None:
    assert not [action for action in ACTIONS if "poweroff" in action.lower()]


def test_errors_name_the_file() -> None:
    assert ROLE == "provisioning/policies/azure-role.json"


# --- the rehearsal ---


@dataclass
class Stage:
    """The account, which may do everything, or (inside rights()) only what was granted."""

    cloud: Cloud
    home: Path
    granted: Sequence[str] = ()
    numbers: Iterator[int] = field(default_factory=itertools.count)
    calls: list[Call] = field(default_factory=list)  # of the part that was played last, inside rights()

    def provider(self) -> AzureProvider:
        """Of a new home folder, where no answer is kept."""
        return self.cloud.provider(home=self.home / str(next(self.numbers)))

    def launch(self, provider: AzureProvider, **more: Any) -> Machine:
        return provider.launch(spec(f"t4-{next(self.numbers)}", **{"offer": ON_DEMAND, **more}))

    def machine(self, **more: Any) -> Machine:
        """One that runs, launched with all rights."""
        provider = self.provider()
        return self.running(provider, self.launch(provider, **more))

    def running(self, provider: AzureProvider, machine: Machine) -> Machine:
        return self.until(provider, machine, "state", "running")

    def until(self, provider: AzureProvider, machine: Machine, name: str, value: str) -> Machine:
        return until(lambda: provider.describe(machine), lambda seen: dict(seen.detail).get(name) == value)

    @contextmanager
    def rights(self) -> Iterator[None]:
        self.cloud.double.forget_calls()
        self.cloud.double.allow(self.granted)
        try:
            yield
        finally:
            self.cloud.double.allow(None)
            self.calls = self.cloud.double.calls()

    def grant(self, actions: list[str]) -> None:
        self.granted = actions

    def used(self) -> frozenset[str]:
        calls = [call for call in self.calls if call.operation]
        return rights_of(each for call in calls for each in (call.operation, *call.linked))

    def refused(self) -> frozenset[str]:
        calls = [call for call in self.calls if call.operation and call.code in DENIED]
        return rights_of((call.linked or (call.operation,))[-1] for call in calls)

    def clear(self) -> None:
        """Nothing is left in the subscription, but the role that machines get."""
        groups = self.cloud.session().resources.resource_groups
        for group in groups.list():
            with suppress(ResourceNotFoundError):  # it was going
                groups.begin_delete(group["name"], polling=False)
        self.cloud.until_empty()

    def forget_role(self) -> None:
        session = self.cloud.session()
        guid = identity.role_id(session).rpartition("/")[2]
        session.authorization.role_definitions.delete(session.scope, guid)


def offers(stage: Stage) -> object:
    with stage.rights():
        found = stage.provider().offers(Need(type=TYPE, regions=(REGION, CLOSED, "westeurope")))
    return sorted((each.region, each.market.value, each.fits, each.why_not) for each in found)


def image(stage: Stage) -> object:
    with stage.rights():
        return stage.provider().find_image(STACK, REGION)


def plan(stage: Stage) -> object:
    with stage.rights():
        return stage.provider().limits(ON_DEMAND)


def first_launch(stage: Stage) -> object:
    """The first machine of a subscription, which has no role for it yet."""
    stage.forget_role()
    provider = stage.provider()
    with stage.rights():
        seen = stage.running(provider, stage.launch(provider, options=LaunchOptions(dns_label="my-t4")))
    facts = dict(seen.detail)
    return seen.state, facts["self-release"], facts["dns"]


def launch_again_from_elsewhere(stage: Stage) -> object:
    """A launch that is repeated by a computer that knows nothing of it meets its own parts and name."""
    wanted = spec(f"t4-{next(stage.numbers)}", offer=ON_DEMAND, options=LaunchOptions(dns_label="my-t4"))
    machine = stage.provider().launch(wanted)
    again = stage.provider()
    with stage.rights():
        return again.launch(wanted).id == machine.id


def launch_into_a_group(stage: Stage) -> object:
    """Also into a network of the user's."""
    make_team(stage.cloud)
    subnet = stage.cloud.session().network.subnets.get("team", "vnet", "machines")["id"]
    provider = stage.provider()
    with stage.rights():
        options = LaunchOptions(resource_group="team", subnet=subnet)
        return stage.running(provider, stage.launch(provider, options=options)).state


def late_refusal(stage: Stage) -> object:
    """Azure has no room after all: all of it is deleted."""
    return refused_late(stage, "Microsoft.Compute/virtualMachines/write", "AllocationFailed")


def late_network_refusal(stage: Stage) -> object:
    """Azure accepts a part of the network and cannot make it: why, its operation tells."""
    return refused_late(stage, "Microsoft.Network/virtualNetworks/write", "InternalExecutionError")


def refused_late(stage: Stage, operation: str, code: str) -> object:
    """States of the groups that are left."""
    stage.cloud.delay(group_s=0.3)
    stage.cloud.double.fault(operation, code, late=True)
    provider = stage.provider()
    try:
        with stage.rights():
            stage.running(provider, stage.launch(provider))
    except CloudrunError as error:
        if code not in error.message:
            raise
    finally:
        stage.cloud.double.clear_faults()
        stage.cloud.delay(group_s=QUICK.group_s)
    groups = stage.cloud.session().resources.resource_groups.list()
    return {each["properties"]["provisioningState"] for each in groups} - {"Deleting"}


def another_computer(stage: Stage) -> object:
    """It is let in beside the one that launched the machine."""
    machine, provider = stage.machine(), stage.provider()
    stage.cloud.here.address = "203.0.113.99"
    try:
        with stage.rights():
            provider.open_access(machine)
    finally:
        stage.cloud.here.address = HERE
    rules = stage.cloud.body("network_security_groups", machine, "-nsg")["properties"]["securityRules"]
    return sorted(each["properties"]["sourceAddressPrefix"] for each in rules)


def machines(stage: Stage) -> object:
    stage.machine()
    with stage.rights():
        return [(machine.region, machine.state) for machine in stage.provider().list_machines()]


def taken_for_good(stage: Stage) -> object:
    machine = stage.machine(offer=SPOT, options=LaunchOptions(on_preempt=OnPreempt.TERMINATE))
    provider = stage.provider()
    stage.cloud.double.preempt(machine.id, notice_s=0)
    until(stage.cloud.alive, lambda ids: not ids)
    with stage.rights():
        return until(lambda: provider.describe(machine), lambda seen: seen.state.gone).state


def stop_and_start(stage: Stage) -> object:
    machine, provider = stage.machine(), stage.provider()
    with stage.rights():
        provider.stop(machine)
        seen = stage.until(provider, machine, "state", "deallocated")
        return stage.running(provider, provider.start(seen)).state


def guard(stage: Stage) -> object:
    machine, provider = stage.machine(), stage.provider()
    with stage.rights():
        provider.set_guard(machine, Guard(issued_at=datetime.now(UTC), idle_minutes=7))
    [seen] = stage.provider().list_machines()
    return seen.deadline_at, seen.idle_minutes


def late_guard_refusal(stage: Stage) -> object:
    """Azure accepts the change and fails: why, its operation tells."""
    machine, provider = stage.machine(), stage.provider()
    stage.cloud.double.fault("Microsoft.Compute/virtualMachines/write", "InternalExecutionError", late=True)
    try:
        with stage.rights():
            provider.set_guard(machine, Guard(issued_at=datetime.now(UTC), idle_minutes=7))
    except CloudrunError as error:
        if "InternalExecutionError" not in error.message:
            raise
        return "told"
    finally:
        stage.cloud.double.clear_faults()
    return "not told"


def disk(stage: Stage) -> object:
    machine, provider = stage.machine(), stage.provider()
    with stage.rights():
        provider.resize_disk(machine, 200)
        return until(lambda: provider.disk_ready(machine, 200), bool)


def late_disk_refusal(stage: Stage) -> object:
    """The machine is on again, with the disk that it had."""
    machine, provider = stage.machine(), stage.provider()
    stage.cloud.double.fault("Microsoft.Compute/disks/write", "QuotaExceeded", late=True)
    try:
        with stage.rights():
            provider.resize_disk(machine, 200)
            until(lambda: provider.disk_ready(machine, 200), bool)
    except CloudrunError as error:
        if "QuotaExceeded" not in error.message:
            raise
    finally:
        stage.cloud.double.clear_faults()
    return stage.running(stage.provider(), machine).state


def terminate(stage: Stage) -> object:
    machine = stage.machine()
    with stage.rights():
        stage.provider().terminate(machine)
    return until(stage.cloud.everything, lambda left: not left)


def terminate_in_a_group(stage: Stage) -> object:
    stage.cloud.session().resources.resource_groups.create_or_update("team", {"location": REGION})
    machine = stage.machine(options=TEAM, offer=CPU)
    with stage.rights():
        stage.provider().terminate(machine)
    return until(stage.cloud.everything, lambda left: left == ["team"])


def own_image(stage: Stage) -> object:
    """Made of a machine, found, deleted."""
    machine, provider = stage.machine(), stage.provider()
    with stage.rights():
        image = made(provider, machine)
        found = [each.name for each in provider.list_images()], provider.own_image(HASH, ON_DEMAND) != ""
        provider.delete_image(image)
        return image.state, found, provider.list_images()


def launch_from_own_image(stage: Stage) -> object:
    provider = stage.provider()
    image = made(provider, stage.machine())
    with stage.rights():
        return stage.running(provider, stage.launch(provider, image=image.id)).state


def made(provider: AzureProvider, machine: Machine) -> OwnImage:
    tags = image_tags(STACK.name, HASH, "baked", owner="someone", stored_gb=1)
    image = provider.create_image(machine, "baked", tags)
    return until(lambda: provider.describe_image(image), lambda seen: seen.state is not ImageState.PENDING)


def leftovers(stage: Stage) -> object:
    """One of each kind, found and freed. The machine keeps what it needs."""
    make_team(stage.cloud)
    stage.machine()
    provider = stage.provider()
    with stage.rights():
        found = provider.list_leftovers()
        for each in found:
            if not each.in_use:
                provider.free(each)
        left = provider.list_leftovers()
    return sorted((each.kind, each.in_use) for each in found), sorted(each.kind for each in left)


def foreign(stage: Stage) -> object:
    """What others have."""
    stage.cloud.session().resources.resource_groups.create_or_update("team", {"location": REGION})
    make_disk(stage.cloud, "theirs", tags={})
    with stage.rights():
        return [each.name for each in stage.provider().list_foreign()]


PARTS: tuple[Part, ...] = (
    offers,
    image,
    plan,
    first_launch,
    launch_again_from_elsewhere,
    launch_into_a_group,
    late_refusal,
    late_network_refusal,
    another_computer,
    machines,
    taken_for_good,
    stop_and_start,
    guard,
    late_guard_refusal,
    disk,
    late_disk_refusal,
    terminate,
    terminate_in_a_group,
    own_image,
    launch_from_own_image,
    leftovers,
    foreign,
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("homes")
    with pytest.MonkeyPatch.context() as patch, open_cloud(home / "home", patch) as cloud:
        cloud.double.restrict(TYPE, CLOSED)
        cloud.double.set_quota("westeurope", FAMILY, 0)
        stage = Stage(cloud, home, ["*"])
        stage.machine()  # the role is there
        stage.clear()
        yield stage


def rights_of(operations: Iterable[str]) -> frozenset[str]:
    """As the role writes them: Azure tells no small letters from capital ones."""
    written = {action.lower(): action for action in ACTIONS}
    return frozenset(written.get(each.lower(), each) for each in operations)


@pytest.fixture(scope="module")
def whole(stage: Stage) -> Mapping[Part, Played]:
    """Every part, played with the role as it is."""
    return play_all(stage, PARTS, REHEARSED)


def test_everything_works_with_the_role(whole: Mapping[Part, Played]) -> None:
    outcomes = outcomes_of(whole)
    assert outcomes["first_launch"] == (
        MachineState.RUNNING,
        "yes",
        "my-t4.eastus.cloudapp.azure.com",
    )
    assert outcomes["launch_into_a_group"] == outcomes["stop_and_start"] == MachineState.RUNNING
    assert outcomes["launch_again_from_elsewhere"] is True
    assert outcomes["taken_for_good"] == MachineState.PREEMPTED
    assert outcomes["own_image"] == (ImageState.AVAILABLE, (["baked"], True), [])
    assert outcomes["launch_from_own_image"] == MachineState.RUNNING
    assert outcomes["another_computer"] == [f"{HERE}/32", "203.0.113.99/32"]
    assert outcomes["machines"] == [(REGION, MachineState.RUNNING)]
    assert outcomes["late_guard_refusal"] == "told"
    assert (outcomes["guard"], outcomes["plan"]) == ((None, 7), "")


def test_the_role_names_just_what_is_used(whole: Mapping[Part, Played]) -> None:
    assert used_by(whole) == REHEARSED


@pytest.mark.parametrize("action", REHEARSED)
def test_without_one_action_something_breaks_and_says_so(
    stage: Stage, whole: Mapping[Part, Played], action: str
) -> None:
    errors = []
    for error in broken_without(stage, whole, action):
        if action.lower() in error.lower():
            return
        errors.append(error)
    assert errors
    assert action in DISPENSABLE
