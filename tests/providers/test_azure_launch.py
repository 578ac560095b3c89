"""Launching on Azure: what is asked for, in how many calls, and one machine whatever happens in between."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from azure_help import CPU, HERE, ON_DEMAND, REGION, SPOT, TYPE, Cloud, open_cloud, spec
from exhaustive import exhaustive
from waiting import until

from cloudrun.config import Settings
from cloudrun.errors import (
    CloudrunError,
    ConnectionLost,
    Credentials,
    NoCapacity,
    NotOffered,
    ProviderError,
    Quota,
    Refused,
)
from cloudrun.models import Guard, LaunchOptions, MachineState, Market, OnPreempt
from cloudrun.providers import load_provider
from cloudrun.providers.azure import launch as launching
from cloudrun.providers.azure import session as sessions
from cloudrun.providers.azure.instances import SELF_RELEASE
from cloudrun.providers.azure.parts import parts_of_id
from cloudrun.providers.launched import load_launched
from cloudrun.providers.rented import fact

# One process that launches again and again, each time in a child that is killed at its next step: what it
# writes, what it sends and what it hears. Prints how the children ended.
LAUNCH_AND_DIE = """
import itertools, os, signal, sys
from pathlib import Path
folder, home, address, most, every = sys.argv[1:]
sys.path[:0] = [folder, str(Path(folder).parent)]
import requests.adapters
from azure_help import CPU, spec
from cloudrun.config import Settings
from cloudrun.providers.azure import AzureProvider

def provider(step):
    endpoint = os.environ["CLOUDRUN_AZURE_ENDPOINT"]
    home_of = Path(home, str(step))
    settings = Settings(home=home_of, sim=home_of, poll_s=0.1, address_url=address, azure_endpoint=endpoint)
    return AzureProvider(settings)

def child(step):
    count = itertools.count(1)
    def stepped():
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGKILL)
    honest = requests.adapters.HTTPAdapter.send
    def send(self, *request, **more):
        stepped()
        answer = honest(self, *request, **more)
        stepped()
        return answer
    requests.adapters.HTTPAdapter.send = send
    sys.addaudithook(lambda event, _: stepped() if event == "os.rename" else None)
    provider(step).launch(spec("box", token=f"token-{step}", offer=CPU))
    os._exit(0)

provider(0).list_machines()  # the SDK's imports, once for all
for step in range(1, int(most), int(every)):
    pid = os.fork()
    if not pid:
        child(step)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status):
        print(step, os.WEXITSTATUS(status))
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
"""
VM = "Microsoft.Compute/virtualMachines/write"
GROUP = "Microsoft.Resources/subscriptions/resourceGroups"
WRITES = (
    f"{GROUP}/write",
    "Microsoft.Network/virtualNetworks/write",
    "Microsoft.Network/publicIPAddresses/write",
    "Microsoft.Network/networkSecurityGroups/write",
    "Microsoft.Network/networkInterfaces/write",
    VM,
)
READS = ("Microsoft.Network/publicIPAddresses/read", "Microsoft.Network/networkInterfaces/read")


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


# --- what is asked for ---


def test_every_part_is_made_for_the_machine_and_goes_with_it(cloud: Cloud) -> None:
    asked = spec("t4", disk_gb=120, tags=(("cloudrun-run", "r1"), ("cloudrun-project", "mine")))
    machine = cloud.provider().launch(asked)
    vm = cloud.body("virtual_machines", machine)
    assert vm["tags"]["cloudrun-token"] == asked.token
    assert (vm["tags"]["cloudrun"], vm["tags"]["cloudrun-name"]) == ("1", "t4")
    assert (vm["tags"]["cloudrun-run"], vm["tags"]["cloudrun-project"]) == ("r1", "mine")
    properties = vm["properties"]
    disk = properties["storageProfile"]["osDisk"]
    assert (disk["diskSizeGB"], disk["managedDisk"]["storageAccountType"]) == (120, "StandardSSD_LRS")
    assert disk["deleteOption"] == "Delete"
    assert properties["networkProfile"]["networkInterfaces"][0]["properties"]["deleteOption"] == "Delete"
    linux = properties["osProfile"]["linuxConfiguration"]
    assert linux["disablePasswordAuthentication"] is True
    public = (cloud.settings.keys_dir / "t4" / "id_ed25519.pub").read_text().strip()
    assert [key["keyData"] for key in linux["ssh"]["publicKeys"]] == [public]
    assert vm["identity"]["type"] == "SystemAssigned"
    address = cloud.body("public_ip_addresses", machine, "-ip")
    assert (address["sku"]["name"], address["properties"]["publicIPAllocationMethod"]) == (
        "Standard",
        "Static",
    )
    for kind, suffix in (("network_interfaces", "-nic"), ("virtual_networks", "-vnet")):
        assert cloud.body(kind, machine, suffix)["tags"]["cloudrun-token"] == asked.token


def test_only_this_computer_is_let_in(cloud: Cloud) -> None:
    machine = cloud.launch()
    [rule] = cloud.body("network_security_groups", machine, "-nsg")["properties"]["securityRules"]
    told = rule["properties"]
    assert (told["sourceAddressPrefix"], told["destinationPortRange"]) == (f"{HERE}/32", "22")
    assert (told["access"], told["direction"], told["protocol"]) == ("Allow", "Inbound", "Tcp")
    interface = cloud.body("network_interfaces", machine, "-nic")["properties"]
    assert interface["networkSecurityGroup"]["id"].endswith("-nsg")


@pytest.mark.parametrize(
    ("market", "run_owned", "on_preempt", "policy"),
    [
        (Market.ON_DEMAND, False, None, None),
        (Market.SPOT, False, None, "Deallocate"),
        (Market.SPOT, True, None, "Delete"),
        (Market.SPOT, False, OnPreempt.TERMINATE, "Delete"),
        (Market.SPOT, True, OnPreempt.STOP, "Deallocate"),
    ],
)
def test_what_becomes_of_a_machine_that_is_taken(
    cloud: Cloud, market: Market, run_owned: bool, on_preempt: OnPreempt | None, policy: str | None
) -> None:
    options = LaunchOptions(on_preempt=on_preempt)
    machine = cloud.launch(offer=replace(SPOT, market=market), run_owned=run_owned, options=options)
    told = cloud.body("virtual_machines", machine)["properties"]
    assert told.get("evictionPolicy") == policy
    assert (told.get("priority") == "Spot") == (market is Market.SPOT)
    if policy:
        assert told["billingProfile"]["maxPrice"] == -1


def test_a_maximum_price_is_sent(cloud: Cloud) -> None:
    machine = cloud.launch(options=LaunchOptions(max_price_per_hour_usd=Decimal("0.2")))
    told = cloud.body("virtual_machines", machine)["properties"]
    assert told["billingProfile"]["maxPrice"] == pytest.approx(0.2)


def test_the_record_of_a_machine(cloud: Cloud) -> None:
    machine = cloud.launch(offer=ON_DEMAND)
    assert (machine.provider, machine.region, machine.type) == ("azure", REGION, TYPE)
    assert (machine.market, machine.price_per_hour_usd) == (Market.ON_DEMAND, Decimal("0.526"))
    assert (machine.gpu, machine.gpu_count, machine.gpu_memory_gib) == ("T4", 1, 16.0)
    assert machine.disk_gb == launching.LEAST_DISK_GB
    assert machine.launched_at is not None
    assert abs(datetime.now(UTC) - machine.launched_at) < timedelta(minutes=1)
    assert fact(machine, SELF_RELEASE) == "yes"
    running = cloud.until(machine, MachineState.RUNNING)
    assert running.address is not None
    assert (running.address.user, running.address.port) == ("azureuser", 22)
    assert running.address.host == fact(running, "fixed-address")
    assert running.address.key_path.is_file()
    public = (cloud.settings.keys_dir / "t4" / "host_key.pub").read_text().split()
    assert running.address.host_key.split() == public[:2]


def test_the_custom_data_carries_keys_guard_and_the_way_to_deallocate(cloud: Cloud) -> None:
    cloud.launch()
    [vm] = cloud.double._computer()._machines.vms
    config = gzip.decompress(base64.b64decode(vm.custom_data)).decode()
    assert config.startswith("#cloud-config\n")
    data = yaml.safe_load(config)
    folder = cloud.settings.keys_dir / "t4"
    assert data["ssh_authorized_keys"] == [(folder / "id_ed25519.pub").read_text().strip()]
    assert data["ssh_keys"]["ed25519_private"] == (folder / "host_key").read_text()
    files = {each["path"]: each["content"] for each in data["write_files"]}
    policy = json.loads(next(content for path, content in files.items() if path.endswith("policy.json")))
    assert policy["release"] == ["sudo", "python3", "/var/lib/cloudrun/azure.py", "release"]
    assert policy["notices"] == "/var/lib/cloudrun/azure.py"
    assert "class Notices" in files["/var/lib/cloudrun/azure.py"]


def test_the_first_gpu_sizes_boot_the_first_generation(cloud: Cloud) -> None:
    old = cloud.launch("k80", offer=replace(ON_DEMAND, type="Standard_NC6", gpu="K80"))
    new = cloud.launch("t4")
    skus = [
        cloud.body("virtual_machines", each)["properties"]["storageProfile"]["imageReference"]["sku"]
        for each in (old, new)
    ]
    assert skus == ["22_04-lts", "22_04-lts-gen2"]


def test_a_subnet_of_the_users_is_taken(cloud: Cloud) -> None:
    first = cloud.launch("first", offer=CPU)
    subnet = cloud.body("virtual_networks", first, "-vnet")["properties"]["subnets"][0]["id"]
    machine = cloud.launch(options=LaunchOptions(subnet=subnet))
    [address] = cloud.body("network_interfaces", machine, "-nic")["properties"]["ipConfigurations"]
    assert address["properties"]["subnet"]["id"] == subnet
    with pytest.raises(Refused, match="no subnet"):
        cloud.launch("another", options=LaunchOptions(subnet="subnet-0123"))


def test_a_dns_name_is_told(cloud: Cloud) -> None:
    machine = cloud.launch(options=LaunchOptions(dns_label="my-t4"))
    assert fact(machine, "dns") == f"my-t4.{REGION}.cloudapp.azure.com"


# --- how many calls, and how long ---


def test_a_launch_is_seven_calls_and_a_look_at_what_takes_a_moment(cloud: Cloud) -> None:
    cloud.launch("first")
    cloud.calls()
    cloud.launch("second")
    calls = cloud.calls()
    looks = {name: calls.pop(name) for name in [*calls] if name.endswith("/read")}
    assert set(looks) <= {name.replace("/write", "/read") for name in WRITES}
    assert calls == {**dict.fromkeys(WRITES, 1), "Microsoft.Authorization/roleAssignments/write": 1}


def test_what_does_not_need_each_other_is_made_side_by_side(cloud: Cloud) -> None:
    cloud.launch("first")
    cloud.delay(network_s=2.0)
    cloud.double.forget_calls()
    cloud.launch("second")
    times = {call.operation: call.at for call in cloud.double.calls() if call.method == "PUT"}
    together = [times[name] for name in WRITES[1:4]]
    assert max(together) - min(together) < timedelta(seconds=2)
    assert times[WRITES[4]] - max(together) >= timedelta(seconds=1.5)


# --- the same machine, whatever happens ---


def test_launch_is_idempotent_by_token(cloud: Cloud) -> None:
    first, second = cloud.launch(), cloud.launch()
    assert (second.id, second.token) == (first.id, first.token)
    assert cloud.alive() == [first.id.lower()]
    kept = load_launched(cloud.settings.keys_dir / "t4")
    assert kept
    assert kept.provider == "azure"
    assert not kept.request  # it had the host's private key in it


@pytest.mark.parametrize("operation", WRITES)
def test_a_lost_answer_is_asked_for_again(cloud: Cloud, operation: str) -> None:
    """The SDK sends again what makes a part; only the machine itself is looked for first."""
    cloud.double.fault(operation, lose_answer=True)
    if operation == VM:
        with pytest.raises(ConnectionLost, match="t4"):
            cloud.launch()
    later = spec("t4", guard=Guard(issued_at=datetime.now(UTC), idle_minutes=5))
    machine = cloud.provider().launch(later)
    assert cloud.until(machine, MachineState.RUNNING).id == machine.id
    assert cloud.alive() == [machine.id.lower()]
    assert len([name for name in cloud.everything() if name.startswith("cloudrun-")]) == 1


def test_a_machine_that_is_being_made_is_met(cloud: Cloud) -> None:
    cloud.double.fault(VM, lose_answer=True)
    with pytest.raises(ConnectionLost):
        cloud.launch()
    cloud.double.fault("Microsoft.Compute/virtualMachines/read", "ResourceNotFound")  # not yet, to this one
    cloud.double.fault(VM, "Conflict")
    assert [cloud.launch().id.lower()] == cloud.alive()


def test_a_refusal_of_now_says_nothing_of_an_earlier_try(cloud: Cloud) -> None:
    cloud.double.fault(VM, lose_answer=True)
    with pytest.raises(ConnectionLost, match="not known"):
        cloud.launch()
    [made] = cloud.alive()
    cloud.double.fault("Microsoft.Compute/virtualMachines/read", "AuthorizationFailed")
    with pytest.raises(ConnectionLost, match="AuthorizationFailed"):
        cloud.launch()
    assert cloud.launch().id.lower() == made


def test_a_launch_that_another_computer_made_is_found_by_its_token(cloud: Cloud, tmp_path: Path) -> None:
    first = cloud.launch()
    found = cloud.provider(home=tmp_path / "other").launch(spec())
    assert found.id == first.id
    assert len(cloud.alive()) == 1


def test_a_name_in_use_is_refused_and_a_name_of_the_dead_is_not(cloud: Cloud) -> None:
    first = cloud.launch(token="one", offer=ON_DEMAND)
    with pytest.raises(ProviderError, match="t4 is there already"):
        cloud.launch(token="two")
    assert (cloud.settings.keys_dir / "t4" / "id_ed25519").is_file()
    cloud.session().resources.resource_groups.begin_delete(parts_of_id(first.id).group).result()
    before = (cloud.settings.keys_dir / "t4" / "id_ed25519").read_text()
    second = cloud.launch(token="two")
    assert second.id != first.id
    assert (cloud.settings.keys_dir / "t4" / "id_ed25519").read_text() != before


# --- refusals ---


@pytest.mark.parametrize("operation", [*WRITES, *READS])
def test_a_launch_that_is_refused_anywhere_leaves_nothing(cloud: Cloud, operation: str) -> None:
    words = f"The client does not have authorization to perform action '{operation}' over scope '/'."
    cloud.double.fault(operation, "AuthorizationFailed", message=words, times=None)
    with pytest.raises(Credentials, match=operation):
        cloud.launch()
    assert not (cloud.settings.keys_dir / "t4").exists()
    cloud.double.clear_faults()
    cloud.until_empty()
    assert cloud.launch(token="another").token == "another"


@pytest.mark.parametrize(
    ("code", "words", "error"),
    [
        ("SkuNotAvailable", "is currently not available in location", NotOffered),
        (
            "OperationNotAllowed",
            "Operation could not be completed as it results in exceeding approved Standard NCASv3_T4 Family "
            "Cores quota. Additional details - Deployment Model: Resource Manager, Location: eastus, Current "
            "Limit: 0, Current Usage: 0, Additional Required: 4, (Minimum) New Limit Required: 4.",
            Quota,
        ),
        (
            "MissingSubscriptionRegistration",
            "The subscription is not registered to use namespace 'Microsoft.Compute'.",
            ProviderError,
        ),
        ("TooManyRequests", "", ProviderError),
    ],
)
def test_every_refusal_of_the_machine_leaves_nothing(
    cloud: Cloud, code: str, words: str, error: type[CloudrunError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "RETRIES", 0)
    cloud.double.fault(VM, code, message=words, times=None)
    cloud.double.fault("Microsoft.Compute/register/action", "AuthorizationFailed", times=None)
    with pytest.raises(error) as caught:
        cloud.launch()
    assert code in caught.value.message
    assert caught.value.hint
    assert not (cloud.settings.keys_dir / "t4").exists()
    cloud.until_empty()


@pytest.mark.parametrize("operation", WRITES[1:5])
def test_a_part_that_fails_late_leaves_nothing(cloud: Cloud, operation: str) -> None:
    cloud.double.fault(operation, "InternalServerError", late=True)
    with pytest.raises(ProviderError):
        cloud.launch()
    assert not (cloud.settings.keys_dir / "t4").exists()
    cloud.until_empty()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AllocationFailed", NoCapacity),
        ("ZonalAllocationFailed", NoCapacity),
        ("OverconstrainedAllocationRequest", NoCapacity),
    ],
)
def test_a_machine_that_fails_late_is_a_refusal_too(
    cloud: Cloud, code: str, error: type[CloudrunError]
) -> None:
    cloud.double.fault(VM, code, late=True)
    machine = cloud.launch()
    provider = cloud.provider()

    def outcome() -> CloudrunError | None:
        try:
            provider.describe(machine)
        except CloudrunError as refusal:
            return refusal
        return None

    refusal = until(outcome, lambda found: found is not None)
    assert isinstance(refusal, error)
    assert code in refusal.message
    assert TYPE in refusal.message
    cloud.until_empty()
    assert provider.describe(machine).state is MachineState.TERMINATED
    provider.terminate(machine)
    assert not (cloud.settings.keys_dir / "t4").exists()


def test_a_repeated_launch_that_meets_a_failed_machine_is_refused(cloud: Cloud) -> None:
    cloud.double.fault(VM, lose_answer=True)
    cloud.double.set_capacity(TYPE, REGION, "spot", 0)
    with pytest.raises(ConnectionLost):
        cloud.launch()
    until(cloud.double.instances, lambda found: found[0]["state"] == "failed")
    with pytest.raises(NoCapacity, match=TYPE):
        cloud.launch()
    assert not (cloud.settings.keys_dir / "t4").exists()
    cloud.until_empty()


def test_refusals_are_named(cloud: Cloud) -> None:
    cloud.double.set_capacity(TYPE, REGION, "spot", 0)
    cloud.double.set_quota(REGION, "lowPriorityCores", 0)
    with pytest.raises(Quota, match=REGION):
        cloud.launch()
    cloud.double.restrict("Standard_D2s_v3", REGION)
    with pytest.raises(NotOffered, match="Standard_D2s_v3"):
        cloud.launch("cpu", offer=CPU)
    premium = LaunchOptions(disk_type="Premium_LRS")
    with pytest.raises(Refused, match="premium"):
        cloud.launch("k80", offer=replace(ON_DEMAND, type="Standard_NC6"), options=premium)
    cloud.until_empty()


def test_a_throttled_launch_is_sent_again(cloud: Cloud) -> None:
    cloud.double.throttle(VM, times=2, retry_after_s=0)
    machine = cloud.launch()
    assert cloud.calls()[VM] == 3
    assert cloud.alive() == [machine.id.lower()]


def test_without_rights_over_itself_it_is_launched_all_the_same(cloud: Cloud) -> None:
    rights = "Microsoft.Authorization/roleAssignments/write"
    cloud.double.fault(rights, "AuthorizationFailed", times=2)
    machine = cloud.launch()
    assert fact(machine, SELF_RELEASE) == "no"
    running = cloud.until(machine, MachineState.RUNNING)
    assert fact(running, SELF_RELEASE) == "no"
    again = cloud.provider().describe(machine)  # as PENDING as the launch left it: one more try
    assert fact(again, SELF_RELEASE) == "yes"


# --- in a group of the user's ---


def test_a_group_that_is_named_has_to_be_there(cloud: Cloud) -> None:
    with pytest.raises(ProviderError, match="no resource group 'team'") as caught:
        cloud.launch(options=LaunchOptions(resource_group="team"))
    assert "az group list" in caught.value.hint
    assert cloud.everything() == []
    assert not (cloud.settings.keys_dir / "t4").exists()


def test_a_group_of_the_users_stays_as_it_was(cloud: Cloud) -> None:
    client = cloud.session().resources
    client.resource_groups.create_or_update("team", {"location": "westus2", "tags": {"owner": "us"}})
    options = LaunchOptions(resource_group="team")
    machine = cloud.launch_running(options=options)
    assert machine.region == REGION
    assert [name for name in cloud.everything() if name.startswith("cloudrun-")] == []
    assert cloud.launch(options=options).id == machine.id
    cloud.provider().terminate(machine)
    assert cloud.everything() == ["team"]
    assert cloud.provider().describe(machine).state is MachineState.TERMINATED
    cloud.provider().terminate(machine)
    assert client.resource_groups.get("team").tags == {"owner": "us"}


@pytest.mark.parametrize("operation", WRITES[1:])
def test_a_refusal_in_a_group_of_the_users_leaves_nothing(cloud: Cloud, operation: str) -> None:
    cloud.session().resources.resource_groups.create_or_update("team", {"location": REGION})
    cloud.double.fault(operation, "AuthorizationFailed")
    with pytest.raises(Credentials):
        cloud.launch(options=LaunchOptions(resource_group="team"))
    assert cloud.everything() == ["team"]


# --- killed, and without the SDK ---


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, *exhaustive(1)])
def test_a_launch_that_is_killed_anywhere_goes_on_to_one_machine(
    every: int, cloud: Cloud, tmp_path: Path
) -> None:
    """Before and after each write, each request, each answer; or at every third of these points."""
    for family in ("cores", "standardDSv3Family"):
        cloud.double.set_quota(REGION, family, 10_000)
    homes = tmp_path / "homes"
    done = subprocess.run(
        [
            *(sys.executable, "-c", LAUNCH_AND_DIE, Path(__file__).parent, homes),
            *(cloud.here.url, "100", str(every)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps, code = (int(word) for word in done.stdout.split())
    assert code == 0
    assert steps > 30, "a launch writes more, and asks more often"
    for step in range(1, steps, every):
        provider = cloud.provider(home=homes / str(step))
        machine = provider.launch(spec("box", token=f"token-{step}", offer=CPU))
        assert provider.launch(spec("box", token=f"token-{step}", offer=CPU)).id == machine.id
    ids = {machine.token: machine.id.lower() for machine in cloud.provider().list_machines()}
    assert sorted(ids) == sorted(f"token-{step}" for step in range(1, steps + 1, every))
    assert sorted(ids.values()) == sorted(cloud.alive())
    assert len(cloud.everything()) == len(ids) * 7  # a group, and six parts


def test_without_the_sdk_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "find_spec", lambda name: None)
    with pytest.raises(ProviderError, match="azure") as caught:
        load_provider("azure", Settings(home=tmp_path))
    assert "cloudrun[azure]" in caught.value.hint
