"""What is stored for images of one's own, as the ledger, the report, the status line and a bill have it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from bill_files import AZURE, CUR, azure_row, cur_row, write_csv
from commandline import Cli
from money_samples import START, a_charge

from cloudrun import images_charged
from cloudrun.billing import stored_seconds
from cloudrun.bills import import_bills
from cloudrun.client import Client
from cloudrun.config import DEFAULT_RATES
from cloudrun.images import SNAPSHOT, ImageState, OwnImage
from cloudrun.ledger import cost_usd, open_image
from cloudrun.locks import holding
from cloudrun.models import Charge
from cloudrun.providers.tags import owner_of
from cloudrun.store import Store

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MONTH = Decimal("1.50")  # of 30 GB at 0.05


def a_line(provider: str = "aws", name: str = "mine", at: datetime = START) -> Charge:
    return open_image(provider, "us-east-1", name, stored_gb=30, at=at)


@pytest.fixture
def image(client: Client) -> OwnImage:
    """One that this home baked."""
    owner = owner_of(client.settings)
    facts = {"stack": "small", "owner": owner, "created_at": START, "stored_gb": 30}
    return OwnImage("aws", "us-east-1", "ami-1", "mine", ImageState.AVAILABLE, **facts)  # type: ignore[arg-type]


def states(store: Store) -> list[str]:
    """Of the lines of images, in their order."""
    lines = [line for line in store.list_charges() if line.what == SNAPSHOT]
    return ["void" if line.void else "closed" if line.closed_at else "open" for line in lines]


def test_it_is_billed_by_the_gb_month_at_aws_by_hours_begun() -> None:
    assert stored_seconds("aws", START, START + timedelta(seconds=1)) == 3600
    assert stored_seconds("azure", START, START + timedelta(seconds=1)) == 1
    for provider in ("aws", "azure"):
        assert cost_usd(a_line(provider), now=START + 730 * HOUR) == MONTH
        begun = cost_usd(a_line(provider), now=START + 729 * HOUR + timedelta(seconds=1))
        assert (begun == MONTH) == (provider == "aws")
    assert cost_usd(a_line("floydhub"), now=START + HOUR) is None


# --- the ledger follows what is there ----------------------------------------------------


def test_a_line_ends_when_its_image_is_first_seen_gone(client: Client, image: OwnImage) -> None:
    ctx, store = client.context(), client.store
    images_charged.open_line(ctx, "aws", "us-east-1", "mine", stored_gb=30)
    other = images_charged.open_line(ctx, "azure", "westeurope", "mine", stored_gb=30)
    for _ in range(2):
        images_charged.settle(ctx, "aws", [image])
    assert states(store) == ["open", "open"]
    for _ in range(2):
        images_charged.settle(ctx, "aws", [])
    assert states(store) == ["closed", "open"]  # the other cloud was not asked
    images_charged.settle(ctx, "aws", [image])  # it had only not been listed for a moment
    assert states(store) == ["closed", "open", "open"]
    assert store.list_charges(open_only=True)[-1].opened_at > START  # nothing is counted twice
    images_charged.close_line(ctx, image)
    images_charged.close_line(ctx, image)
    assert store.list_charges(open_only=True) == [other]


def test_an_image_of_ours_without_a_line_gets_it_from_when_it_was_made(
    client: Client, image: OwnImage
) -> None:
    ctx, store = client.context(), client.store
    foreign, failed = replace(image, name="his", owner="him"), replace(image, name="no")
    images_charged.settle(ctx, "aws", [image, foreign, replace(failed, state=ImageState.FAILED)])
    (line,) = store.list_charges()
    assert (line.machine, line.opened_at, line.quantity) == ("image mine", START, 30)
    ctx.store.add_charge(line)  # another process saw the same at the same moment
    images_charged.settle(ctx, "aws", [image])
    assert states(store) == ["open", "void"]


def test_what_a_cut_bake_never_asked_for_costs_nothing(client: Client) -> None:
    ctx, store = client.context(), client.store
    images_charged.open_line(ctx, "aws", "us-east-1", "mine", stored_gb=30)
    with holding(images_charged.bake_lock(client.settings, "bake-mine")) as held:
        assert held
        images_charged.settle(ctx, "aws", [])
        assert states(store) == ["open"]  # somebody is about to ask for it
    images_charged.settle(ctx, "aws", [])
    assert states(store) == ["void"]


# --- where it is shown -------------------------------------------------------------------


def test_a_report_has_it_under_a_name_of_its_own(cli: Cli, store: Store) -> None:
    store.add_charges([replace(a_line(), closed_at=START + 73 * DAY), a_line(name="new", at=START)])
    month = cli("cost", "report", "--by", "month", "--json").json["rows"]
    assert sum(row["other_usd"] for row in month) == sum(row["estimated_usd"] for row in month)
    assert month[-1]["key"] == "2026-03"
    assert month[-1]["known_usd"] == pytest.approx(2 * 1.5 * 27.5 * 24 / 730, abs=1e-6)
    for by, key in [("project", "(images)"), ("job", "(images)"), ("type", "image"), ("provider", "aws")]:
        (row,) = cli("cost", "report", "--by", by, "--json").json["rows"]
        assert row["key"] == key
    found = cli("cost", "report", "--by", "machine", "--json").json
    assert {row["key"]: row["total_usd"] for row in found["rows"]}["image mine"] == 3.6
    assert [(each["machine"], each["type"], each["on"]) for each in found["running"]] == [
        ("image new", "image", False)
    ]
    shown = cli("cost", "report", "--by", "machine").out
    assert "image new" in shown
    assert "image, off" not in shown


def test_the_status_line_and_the_month_know_it(cli: Cli, client: Client, store: Store) -> None:
    assert "kept" not in cli("status").err
    at = datetime.now(UTC) - 2 * HOUR
    store.add_charges([replace(a_line(at=at), quantity=Decimal(7300)), a_line(name="gone", at=at)])
    store.close_charge(2, at + HOUR)
    store.add_charge(a_charge(what="disk", unit="GB-month", closed_at=None, opened_at=at))
    assert "1 image kept, 0.50 USD an hour; spent" in cli("status").err
    client.set_budget(Decimal(1000))
    (standing,) = client.budgets()
    assert standing.spent_usd + standing.ahead_usd > Decimal("0.5")
    store.add_charge(a_line("floydhub", at=at))
    assert "2 images kept, unknown an hour" in cli("status").err


# --- the bill ----------------------------------------------------------------------------


def test_a_bill_tells_it_by_its_tag(store: Store, tmp_path: Path) -> None:
    store.add_charges([replace(a_line(each), closed_at=START + HOUR) for each in ("aws", "azure")])
    tag = "resourceTags/user:cloudrun-image"
    row = cur_row(START, "EBS:SnapshotUsage", "0.0030000000", pricing__unit="GB-Mo",
                  lineItem__ResourceId="arn:aws:ec2:us-east-1:123456789012:snapshot/snap-1",
                  **{tag: "mine"})  # fmt: skip
    cur = write_csv(tmp_path / "cur.csv", [*CUR, tag], [row, row | {tag: "his", "identity/LineItemId": "2"}])
    place = "/subscriptions/1/resourceGroups/cloudrun-images-eastus/providers/Microsoft.Compute/images/mine"
    names = {"MeterSubCategory": "Standard HDD Managed Disks", "MeterName": "LRS Snapshots"}
    azure = azure_row(f"{START:%m/%d/%Y}", place, "Storage", "0.002055", **names,
                      Tags='"cloudrun": "1","cloudrun-image": "mine"')  # fmt: skip
    bills = [cur, write_csv(tmp_path / "azure.csv", AZURE, [azure])]
    of_aws, of_azure = import_bills(store, bills, rates=DEFAULT_RATES, now=START + DAY)
    assert (of_aws.matched, of_aws.foreign_usd, of_azure.matched) == (1, Decimal("0.003"), 1)
    assert [each.machine for each in of_aws.differences + of_azure.differences] == ["image mine"] * 2
    assert {each.what for each in store.list_billed()} == {SNAPSHOT}
    assert of_azure.differences[0].why == ()
    (dear,) = import_bills(
        store,
        [write_csv(tmp_path / "dear.csv", [*CUR, tag], [row | {"lineItem/UnblendedCost": "0.03"}])],
        rates=DEFAULT_RATES,
        now=START + DAY,
    )
    assert dear.differences[0].why == ("snapshot: 0.00 USD by our estimate, 0.03 billed",)
