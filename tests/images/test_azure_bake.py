"""Baking at Azure: generations of machines, and kills at each boundary of steps that Azure takes apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from exhaustive import exhaustive
from machine_help import need
from rented_help import AZURE_TYPE, RentedCloud, wait_for
from test_bake import Told, bake, launch

from cloudrun import images_bake
from cloudrun.client import Client
from cloudrun.errors import ProviderError, Refused
from cloudrun.events import Event, Note
from cloudrun.images import SNAPSHOT, ImageState
from cloudrun.models import Market

KILLER = Path(__file__).with_name("bake_killer.py")
NC6, REGION = "Standard_NC6", "eastus"
KILLED = -9


def test_each_generation_of_machines_has_an_image_of_its_own(client: Client, stack: str) -> None:
    """A K80 boots none that was made on a T4; the newer one does not make the older one superfluous."""
    old = client.bake(client.plan_bake(stack, type=NC6, regions=(REGION,), name="for-k80"))
    new = client.bake(client.plan_bake(stack, type=AZURE_TYPE, regions=(REGION,), name="for-t4", again=True))
    assert (old.kind, new.kind) == ("V1", "V2")
    assert [listed.idle for listed in client.own_images()] == ["", ""]
    for kind, name in ((NC6, "k80"), (AZURE_TYPE, "t4")):
        with pytest.raises(Refused, match="has this very stack on it"):
            client.plan_bake(stack, type=kind, regions=(REGION,))
        told = Told()
        client.launch(type=kind, stack=stack, regions=(REGION,), name=name, on_event=told)
        assert told.has(f"begins with an image of yours: for-{name}")
    client.delete_image(old)
    assert client.plan_bake(stack, type=NC6, regions=(REGION,)).name


def test_where_nobody_may_make_groups_it_is_made_in_one_that_exists(client: Client, stack: str) -> None:
    given = {"type": NC6, "regions": (REGION,), "resource_group": "ours"}
    with pytest.raises(ProviderError, match="no resource group 'ours'"):
        client.bake(client.plan_bake(stack, **given))  # type: ignore[arg-type]
    assert client.store.list_charges(open_only=True) == []


def test_azures_own_agent_forgets_the_machine(client: Client, stack: str) -> None:
    """The rehearsal's machines have none: a program of that name tells how it was called."""
    need("namespace")  # others have no system of their own
    agent = "/usr/local/sbin/waagent"
    script = '#!/bin/sh\necho "$@" >/var/lib/waagent-told\n'

    class Visitor(Told):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, Note) and "30-theanorc applied" in event.message:
                [machine] = client.store.list_machines()
                shell = client.context().connect(machine)
                shell.run(f"sudo tee {agent} >/dev/null && sudo chmod 755 {agent}", input=script.encode())
                shell.close()

    client.bake(client.plan_bake(stack, type=AZURE_TYPE, market=Market.SPOT), on_event=Visitor())
    launch(client, stack, "next", Told(), type=AZURE_TYPE)
    assert client.shell("next").run("cat /var/lib/waagent-told").text == "-force -deprovision"


@pytest.mark.parametrize("point", ["waiting", *exhaustive("launched", "cleaned", "asked", "made")])
def test_the_next_bake_lets_go_what_a_killed_one_left(
    client: Client, cloud: RentedCloud, stack: str, point: str
) -> None:
    """With its machine goes an image that was not begun: what Azure had begun, it may finish."""
    command = [sys.executable, str(KILLER), stack, AZURE_TYPE, point]
    assert subprocess.run(command, check=False, timeout=100).returncode == KILLED
    [left] = client.store.list_machines()
    assert left.name.startswith("bake-")
    images_bake.let_go_cut_ones(client.context())
    wait_for(lambda: cloud.live() == [])
    wait_for(lambda: all(each.image.state is not ImageState.PENDING for each in client.own_images()))
    ready = [each.image for each in client.own_images() if each.image.state is ImageState.AVAILABLE]
    assert len(ready) in {"made": (1,), "asked": (0, 1), "waiting": (0, 1)}.get(point, (0,))
    assert [line.what for line in client.store.list_charges(open_only=True)] == [SNAPSHOT] * len(ready)
    assert [item for item in client.audit(provider="azure") if item.problem] == []
    if ready:
        told = Told()
        launch(client, stack, "next", told, type=AZURE_TYPE)
        assert told.has("begins with an image of yours")
    else:
        assert bake(client, stack, type=AZURE_TYPE).state is ImageState.AVAILABLE
