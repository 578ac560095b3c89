"""`cloudrun images bake|list|delete` as they are typed: what is shown, what is asked, and the exit codes."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from commandline import Cli, Said, say
from rented_help import TYPE, RentedCloud, wait_for

from cloudrun.cli.shapes import listed_image_shape
from cloudrun.client import Client
from cloudrun.images import ImageState, OwnImage
from cloudrun.images_list import Listed
from cloudrun.models import Market
from cloudrun.providers.tags import image_tags


@pytest.fixture
def cloudrun(cloud: RentedCloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """A command line. `real`: as if the cloud were no rehearsal, which asks before it does anything."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str, real: bool = False) -> Said:
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO())
            if real:
                patch.delenv("CLOUDRUN_SIM")
            return say(capsys, *words)

    return call


def kept(client: Client, name: str, *, stack: str = "mine", stack_hash: str = "ab" * 32) -> OwnImage:
    """An image of a machine with nothing on it, made as another computer might have."""
    machine = next(iter(client.store.list_machines()), None) or client.launch(
        type=TYPE, market=Market.SPOT, stack="none", name="bare", regions=("us-east-1",)
    )
    tags = image_tags(stack, stack_hash, name, owner="me", stored_gb=4)
    provider = client.provider("aws")
    image: OwnImage = provider.create_image(machine, name, tags)  # type: ignore[attr-defined]
    wait_for(lambda: provider.describe_image(image).state is not ImageState.PENDING)  # type: ignore[attr-defined]
    return image


def names(shown: Sequence[dict[str, object]]) -> list[object]:
    return [each["name"] for each in shown]


def test_a_bake_is_shown_first(cloudrun: Cli, cloud: RentedCloud, stack: str) -> None:
    shown = cloudrun("images", "bake", stack, "--on", TYPE, "--spot", "--name", "mine", "--dry-run")
    assert shown.code == 0, shown.err
    assert "mine, in aws us-west-2 and nowhere else" in shown.out
    assert "0.05 USD a month for each GB" in shown.out
    assert "nothing was spent" in shown.err
    told = cloudrun("images", "bake", stack, "--on", TYPE, "--name", "mine", "--dry-run", "--json")
    plan = json.loads(told.out)
    assert (plan["name"], plan["provider"], plan["market"]) == ("mine", "aws", "on-demand")
    assert plan["worst_case_usd"] > plan["price_per_hour_usd"]
    asked = cloudrun("images", "bake", stack, "--on", TYPE, "--spot", real=True)
    assert asked.code == 2
    assert "this needs a yes" in asked.err
    assert cloud.live() == []


def test_images_of_ones_own_are_listed_and_deleted(cloudrun: Cli, client: Client) -> None:
    assert "no image of your own" in cloudrun("images", "list", "--own").err
    kept(client, "older")
    newer = kept(client, "newer")
    kept(client, "changed", stack="cuda8-theano", stack_hash="cd" * 32)

    listed = cloudrun("images", "list")
    assert "cuda11-torch" in listed.out
    assert "nothing: newer is newer" in listed.out
    assert "nothing: the stack is another by now" in listed.out
    shown = json.loads(cloudrun("images", "list", "--own", "--json").out)
    assert names(shown) == ["older", "newer", "changed"]
    assert [each["unused"] for each in shown] == [True, False, True]
    assert shown[0]["price_per_month_usd"] == pytest.approx(0.20)
    assert shown[1]["id"] == newer.id

    assert cloudrun("images", "delete").code == 2
    assert cloudrun("images", "delete", "newer", "--unused").code == 2
    unknown = cloudrun("images", "delete", "nobody")
    assert unknown.code == 2
    assert "no image 'nobody'" in unknown.err
    dry = cloudrun("images", "delete", "--unused", "--dry-run")
    assert "2 images would go, about 0.40 USD a month less" in dry.err
    assert cloudrun("images", "delete", "--unused", real=True).code == 2  # nobody says yes
    young = cloudrun("images", "delete", "--unused", "--older-than", "30d", "-y")
    assert "there is no such image" in young.err
    assert len(client.own_images()) == 3
    gone = cloudrun("images", "delete", "--unused", "-y", "--json")
    assert names(json.loads(gone.out)) == ["older", "changed"]
    assert [each.image.name for each in client.own_images()] == ["newer"]
    assert cloudrun("images", "delete", "newer", "-y").code == 0
    assert client.own_images() == []


@pytest.mark.parametrize(
    ("machines", "idle", "unused"), [((), "", False), (("k80",), "newer", False), ((), "newer", True)]
)
def test_what_a_machine_came_from_is_in_use(machines: tuple[str, ...], idle: str, unused: bool) -> None:
    made_at = datetime.now(UTC) - timedelta(days=1)
    image = OwnImage("aws", "us-east-1", "ami-1", "mine", ImageState.AVAILABLE, created_at=made_at)
    assert listed_image_shape(Listed(image, machines, idle))["unused"] is unused
