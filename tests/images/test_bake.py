"""Baking in the rehearsal: a stack put on a machine once, and launches that begin with its disk."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from rented_help import AZURE_TYPE, DRILL, TYPE, RentedCloud, wait_for

from cloudrun import doctor
from cloudrun.client import Client
from cloudrun.errors import CloudrunError, Interrupted, ProviderError, Refused
from cloudrun.events import Event, Note
from cloudrun.images import SNAPSHOT, ImageState, OwnImage
from cloudrun.images_bake import MAX_HOURS
from cloudrun.images_own import remember
from cloudrun.models import LaunchOptions, Machine, Market
from cloudrun.stacks import load_stack, stack_hash

TYPES = {"aws": TYPE, "azure": AZURE_TYPE}
# Of either kind of the rehearsal's machines.
SHOW_KEY = "cat /etc/ssh/ssh_host_ed25519_key.pub ~/../host_key.pub 2>/dev/null || true"
SYSTEM = 'base=; [ ! -d "$HOME/.system" ] || base=$HOME/.system; '


class Told:
    """What a user was told meanwhile."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event.message)

    def has(self, words: str) -> bool:
        return any(words in note for note in self.notes)


def bake(client: Client, stack: str, *, type: str = TYPE, name: str = "", again: bool = False) -> OwnImage:
    plan = client.plan_bake(stack, type=type, market=Market.SPOT, name=name, again=again)
    return client.bake(plan, on_event=Told())


def launch(client: Client, stack: str, name: str, told: Told, *, type: str = TYPE, **more: object) -> Machine:
    options = LaunchOptions(**more)  # type: ignore[arg-type]
    return client.launch(
        type=type, market=Market.SPOT, stack=stack, name=name, options=options, on_event=told
    )


@pytest.mark.parametrize("provider", sorted(TYPES))
def test_a_launch_begins_with_what_was_baked(
    client: Client, cloud: RentedCloud, stack: str, provider: str
) -> None:
    kind = TYPES[provider]
    image = bake(client, stack, type=kind)
    assert image.state is ImageState.AVAILABLE
    assert (image.provider, image.stack, image.stack_hash) == (
        provider,
        "small",
        stack_hash(load_stack(stack)),
    )
    wait_for(lambda: cloud.live() == [])
    assert client.machines() == []
    (line,) = client.store.list_charges(open_only=True)  # what is stored for it
    assert (line.what, line.provider, line.machine) == (SNAPSHOT, provider, f"image {image.name}")
    assert line.quantity == image.stored_gb > 0
    assert [line.what for line in client.store.list_charges() if line.what == "compute"]

    told = Told()
    machine = launch(client, stack, "k80", told, type=kind)
    assert told.has("begins with an image of yours")
    assert not told.has("30-theanorc applied")
    assert "device = cpu" in client.shell("k80").run("cat ~/.theanorc").text
    [listed] = client.own_images()
    assert listed.machines == ("k80",)
    assert not listed.unused
    client.terminate(machine.name)

    told = Told()
    launch(client, stack, "plain", told, type=kind, base_image=True)
    assert not told.has("image of yours")
    assert told.has("30-theanorc applied")
    client.provider(provider).delete_image(image)  # type: ignore[attr-defined]  # as in the console
    client.audit(provider=provider)
    assert SNAPSHOT not in [line.what for line in client.store.list_charges(open_only=True)]


def test_nothing_of_the_machine_is_on_the_image(client: Client, stack: str) -> None:
    seen: dict[str, str] = {}

    class Visitor(Told):
        """Leaves things behind on the machine that is baked, when it is ready."""

        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, Note) and "30-theanorc applied" in event.message:
                [machine] = client.store.list_machines()
                shell = client.context().connect(machine)
                shell.run("mkdir -p ~/.cloudrun/runs/r1 ~/.cache/pip && touch ~/.cloudrun/runs/r1/log")
                shell.run("echo secret >~/.bash_history; echo secret >~/.cache/pip/x; touch ~/mine")
                shell.run(SYSTEM + 'echo secret | sudo tee "$base/var/log/mine.log" >/dev/null')
                seen["key"] = shell.run(SHOW_KEY).text
                seen["name"] = machine.name
                shell.close()

    plan = client.plan_bake(stack, type=TYPE, market=Market.SPOT)
    client.bake(plan, on_event=Visitor())
    assert seen["name"] == plan.machine
    told = Told()
    launch(client, stack, "next", told)
    shell = client.shell("next")
    assert shell.run("ls ~/mine", check=False)  # of what was put on it nothing is lost
    assert shell.run("cat ~/.bash_history ~/.cache/pip/x 2>/dev/null || true").text == ""
    assert shell.run("ls ~/.cloudrun/runs 2>/dev/null || true").text == ""
    assert shell.run(SYSTEM + 'sudo cat "$base/var/log/mine.log"').text == ""
    assert shell.run(SYSTEM + 'ls "$base/var/lib/cloud/scripts/per-boot"').text == "cloudrun.sh"
    assert shell.run(SHOW_KEY).text not in ("", seen["key"])
    assert doctor.is_guarded(client.context(), client.machine("next"))


def test_of_equal_offers_the_one_with_an_image_is_taken(
    client: Client, cloud: RentedCloud, stack: str
) -> None:
    def regions(market: Market) -> list[str]:
        _, candidates = client.plan_launch(type=TYPE, market=market, stack=stack)
        return [offer.region for offer in candidates]

    before = regions(Market.SPOT), regions(Market.ON_DEMAND)
    assert before[1][0] != "us-west-2"
    remember(client.settings, [an_image(stack, "us-west-2"), an_image(stack, "ap-south-1")])
    assert regions(Market.ON_DEMAND)[0] == "us-west-2"  # at the same price
    assert regions(Market.SPOT) == before[0]  # the others are dearer
    plan = client.plan(DRILL, type=TYPE, market=Market.ON_DEMAND, stack=stack)
    assert plan.candidates[0].region == "us-west-2"
    assert client.own_images() == []  # it has seen that there are none
    assert regions(Market.ON_DEMAND) == before[1]
    assert cloud.live() == []


def an_image(stack: str, region: str) -> OwnImage:
    made_of = stack_hash(load_stack(stack))
    return OwnImage("aws", region, "ami-1", "small-1", ImageState.AVAILABLE, stack_hash=made_of)


def test_the_same_is_baked_once(client: Client, stack: str) -> None:
    first = bake(client, stack, name="mine")
    with pytest.raises(Refused, match=r"mine in .* has this very stack"):
        client.plan_bake(stack, type=TYPE, market=Market.SPOT)
    with pytest.raises(Refused, match="an image mine is there already"):
        client.plan_bake(stack, type=TYPE, market=Market.SPOT, name="mine", again=True)
    second = bake(client, stack, again=True)
    old, new = client.own_images()
    assert (old.image.id, new.image.id) == (first.id, second.id)
    assert old.unused
    assert old.idle == f"{second.name} is newer"
    assert not new.unused
    client.delete_image(first)
    (line,) = client.store.list_charges(open_only=True)
    assert line.machine == f"image {second.name}"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"stack": "none", "type": TYPE}, "installs nothing"),
        ({"type": "local"}, "keeps no images"),
        ({"type": TYPE, "name": "a b"}, "cannot name an image"),
    ],
)
def test_what_cannot_be_baked_is_refused(client: Client, stack: str, asked: dict[str, str], why: str) -> None:
    with pytest.raises(Refused, match=why):
        client.plan_bake(**{"stack": stack, **asked})  # type: ignore[arg-type]


def test_the_plan_names_the_price_and_changes_nothing(client: Client, cloud: RentedCloud, stack: str) -> None:
    plan = client.plan_bake(stack, type=TYPE)
    assert plan.worst_case_usd is not None
    assert plan.worst_case_usd > Decimal(MAX_HOURS) * (plan.candidates[0].price_per_hour_usd or 0)
    assert plan.price_per_gb_month_usd
    assert len({offer.region for offer in plan.candidates}) == 1
    assert cloud.live() == []


def test_without_an_image_the_machine_is_let_go(client: Client, cloud: RentedCloud, stack: str) -> None:
    plan = client.plan_bake(stack, type=TYPE, market=Market.SPOT)
    cloud.record.tell("fault", action="CreateImage", code="SnapshotLimitExceeded")
    with pytest.raises(CloudrunError, match="limit on snapshots"):
        client.bake(plan)
    wait_for(lambda: cloud.live() == [])
    assert client.own_images() == []
    assert client.store.list_charges(open_only=True) == []


def test_interrupted_while_waiting_nothing_is_left(
    client: Client, cloud: RentedCloud, stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = client.plan_bake(stack, type=TYPE, market=Market.SPOT)
    provider = client.provider("aws")

    def interrupted(_image: OwnImage) -> OwnImage:
        raise Interrupted("Ctrl-C")

    monkeypatch.setattr(provider, "describe_image", interrupted, raising=False)
    with pytest.raises(Interrupted):
        client.bake(plan)
    wait_for(lambda: cloud.live() == [] and client.own_images() == [])
    assert client.store.list_charges(open_only=True) == []


def test_an_image_that_is_gone_is_not_missed(client: Client, stack: str) -> None:
    """Another computer deleted it: what this one knows is some minutes old."""
    image = bake(client, stack)
    elsewhere = Client(replace(client.settings, home=client.settings.home / "elsewhere"))
    launch(client, stack, "first", Told())
    elsewhere.delete_image(image)
    told = Told()
    machine = launch(client, stack, "second", told)
    assert told.has("the published image instead")
    assert machine.provisioned


def test_a_machine_that_is_taken_before_leaves_nothing(
    client: Client, cloud: RentedCloud, stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = client.plan_bake(stack, type=TYPE, market=Market.SPOT)
    provider = client.provider("aws")
    create = provider.create_image  # type: ignore[attr-defined]

    def taken(machine: Machine, name: str, tags: dict[str, str]) -> OwnImage:
        cloud.preempt(machine.id, 0)
        wait_for(lambda: cloud.live() == [])
        image: OwnImage = create(machine, name, tags)
        return image

    monkeypatch.setattr(provider, "create_image", taken, raising=False)
    with pytest.raises(ProviderError, match="the machine is in no state for that"):
        client.bake(plan)
    assert client.own_images() == []
    assert client.store.list_charges(open_only=True) == []
