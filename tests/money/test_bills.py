"""Bills beside the ledger: whose a line is, what differs and why; a second import changes nothing."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import Path

import pytest
from bill_files import AZURE, CUR, azure_row, cur_row, write_csv
from commandline import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from money_samples import START, a_charge, a_machine

from cloudrun.bill_formats import read_bill
from cloudrun.bills import import_bills
from cloudrun.config import DEFAULT_RATES
from cloudrun.errors import UsageError
from cloudrun.models import Market
from cloudrun.store import Store

HOUR = timedelta(hours=1)
NOW = START + timedelta(days=9)
GROUP = "/subscriptions/1111/resourceGroups/cloudrun-cr-0a1b2c3d4e5f/providers"
VM = f"{GROUP}/Microsoft.Compute/virtualMachines/cr-0a1b2c3d4e5f"
DISK = f"{GROUP}/Microsoft.Compute/disks/cr-0a1b2c3d4e5f-disk"
ADDRESS = f"{GROUP}/Microsoft.Network/publicIPAddresses/cr-0a1b2c3d4e5f-ip"
OLD_NAMES = {
    "Date": "UsageDateTime",
    "ResourceId": "InstanceId",
    "CostInBillingCurrency": "PreTaxCost",
    "BillingCurrencyCode": "Currency",
    "Quantity": "UsageQuantity",
    "SubscriptionId": "SubscriptionGuid",
}


@pytest.fixture
def bench(store: Store) -> Store:
    """Two hours of a spot machine at 0.20, estimated, with its disk and address."""
    store.add_machine(a_machine("bench", id="i-0abc", market=Market.SPOT))
    end = START + 2 * HOUR
    store.add_charges([
        a_charge(closed_at=end, unit_price_usd=Decimal("0.20"), estimated=True, market=Market.SPOT),
        a_charge(closed_at=end, what="disk", unit="GB-month", quantity=Decimal(100),
                 unit_price_usd=Decimal("0.08")),
        a_charge(closed_at=end, what="address", unit_price_usd=Decimal("0.005")),
    ])  # fmt: skip
    return store


def cur_rows(price: str = "0.2500000000") -> list[dict[str, str]]:
    """The same two hours as AWS bills them, and something of somebody else's."""
    rows = []
    for number in range(2):
        at = START + number * HOUR
        rows += [
            cur_row(at, "USE1-SpotUsage:p2.xlarge", price, lineItem__ResourceId="i-0abc"),
            cur_row(at, "EBS:VolumeUsage.gp3", "0.0109589041", lineItem__ResourceId="vol-1",
                    lineItem__Operation="CreateVolume-Gp3", pricing__unit="GB-Mo",
                    **{"resourceTags/user:cloudrun-name": "bench"}),
            cur_row(at, "PublicIPv4:InUseAddress", "0.0050000000", lineItem__ProductCode="AmazonVPC",
                    lineItem__ResourceId="arn:aws:ec2:us-east-1:123456789012:network-interface/eni-1",
                    **{"resourceTags/user:cloudrun-name": "bench"}),
        ]  # fmt: skip
    return [*rows, cur_row(START, "Requests-Tier1", "3.21", lineItem__ProductCode="AmazonS3")]


@pytest.fixture
def cur(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "cur.csv", CUR, cur_rows())


def test_a_cost_and_usage_report_beside_the_ledger(bench: Store, cur: Path) -> None:
    (found,) = import_bills(bench, [cur], rates=DEFAULT_RATES, now=NOW)
    assert (found.provider, found.lines, found.matched, found.new) == ("aws", 7, 6, 6)
    assert found.foreign_usd == Decimal("3.21")
    (difference,) = found.differences
    assert difference.machine == "bench"
    assert difference.ours_usd == Decimal("0.431918")
    assert difference.billed_usd == Decimal("0.5319178082")
    assert difference.why == ("0.2500 USD/h billed, 0.2000 counted",)


def test_importing_twice_changes_nothing_and_a_later_version_takes_the_place(
    bench: Store, cur: Path, tmp_path: Path
) -> None:
    import_bills(bench, [cur], rates=DEFAULT_RATES, now=NOW)
    before = bench.list_billed()
    (again,) = import_bills(bench, [cur], rates=DEFAULT_RATES, now=NOW)
    assert (again.new, again.changed) == (0, 0)
    assert bench.list_billed() == before
    renumbered = [row | {"identity/LineItemId": f"other{n}"} for n, row in enumerate(cur_rows("0.3"))]
    later = write_csv(tmp_path / "later.csv", CUR, renumbered)
    (found,) = import_bills(bench, [later], rates=DEFAULT_RATES, now=NOW)
    assert (found.new, found.changed) == (0, 2)
    assert len(bench.list_billed()) == len(before)
    assert found.differences[0].billed_usd == Decimal("0.6319178082")


def test_equal_lines_of_one_bill_are_added(bench: Store, tmp_path: Path) -> None:
    row = cur_row(START, "SpotUsage:p2.xlarge", "0.1", lineItem__ResourceId="i-0abc")
    path = write_csv(tmp_path / "cur.csv", CUR, [row, row | {"identity/LineItemId": "2"}])
    (found,) = import_bills(bench, [path], rates=DEFAULT_RATES, now=NOW)
    assert found.differences[0].billed_usd == Decimal("0.2")


@pytest.mark.parametrize("kind", ["gzip", "zip", "cur2"])
def test_the_same_bill_however_it_is_packed_and_spelt(
    bench: Store, cur: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"bill.{kind}"
    if kind == "gzip":
        path.write_bytes(gzip.compress(cur.read_bytes()))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.write(cur, "report-1.csv")
    else:  # CUR 2.0: underscores, and tags as one map
        names = [snake(name) for name in CUR[:-1]] + ["resource_tags"]
        tags = [json.dumps({"user_cloudrun_name": row.get(CUR[-1], "")}) for row in cur_rows()]
        rows = [{snake(name): value for name, value in row.items() if name != CUR[-1]} for row in cur_rows()]
        write_csv(path, names, [row | {"resource_tags": tag} for row, tag in zip(rows, tags, strict=True)])
    (found,) = import_bills(bench, [path], rates=DEFAULT_RATES, now=NOW)
    assert (found.matched, found.differences[0].billed_usd) == (6, Decimal("0.5319178082"))


def snake(name: str) -> str:
    """lineItem/UnblendedCost as CUR 2.0 has it: line_item_unblended_cost."""
    spaced = "".join(f"_{letter}" if letter.isupper() else letter for letter in name.replace("/", "_"))
    return spaced.lower().replace("__", "_").replace("i_pv4", "ipv4")


def test_without_pyarrow_the_way_out_is_said(
    bench: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cur.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="Parquet needs pyarrow") as refusal:
        import_bills(bench, [path], rates=DEFAULT_RATES, now=NOW)
    assert "CSV" in refusal.value.hint


def test_parquet(bench: Store, tmp_path: Path) -> None:
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    path = tmp_path / "cur.parquet"
    rows = [
        {snake(name).replace(":", "_").replace("-", "_"): row.get(name, "") for name in CUR}
        for row in cur_rows()
    ]
    for row in rows:
        row["line_item_unblended_cost"] = float(row["line_item_unblended_cost"])
        row["line_item_usage_start_date"] = datetime.fromisoformat(row["line_item_usage_start_date"])
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    (found,) = import_bills(bench, [path], rates=DEFAULT_RATES, now=NOW)
    assert (found.matched, found.differences[0].billed_usd) == (6, Decimal("0.5319178082"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError) as refusal:
        import_bills(bench, [path], rates=DEFAULT_RATES, now=NOW)
    assert refusal.value.hint == "is the file whole?"


def azure_rows() -> list[dict[str, str]]:
    tags = '"cloudrun": "1","cloudrun-name": "street"'
    return [
        azure_row("03/04/2026", VM, "Virtual Machines", "12", Tags=tags),
        azure_row("03/04/2026", DISK.upper(), "Storage", "0.25",
                  MeterSubCategory="Standard SSD Managed Disks", UnitOfMeasure="1/Month", Quantity="0.03"),
        azure_row("03/04/2026", ADDRESS, "Virtual Network", "0.12",
                  MeterSubCategory="IP Addresses", MeterName="Standard IPv4 Static Public IP"),
        azure_row("03/04/2026", "/subscriptions/1111/somebody/else", "Bandwidth", "1"),
    ]  # fmt: skip


@pytest.fixture
def street(store: Store) -> Store:
    """A day of a machine at Azure, at 0.50 USD an hour."""
    store.add_machine(a_machine("street", provider="azure", id=VM))
    midnight = datetime(2026, 3, 4, tzinfo=UTC)
    store.add_charge(a_charge(machine="street", provider="azure", unit_price_usd=Decimal("0.50"),
                              opened_at=midnight, closed_at=midnight + 24 * HOUR))  # fmt: skip
    return store


def test_an_azure_export_beside_the_ledger(street: Store, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "part_0.csv", AZURE, azure_rows(), mark=True)
    (found,) = import_bills(street, [path], rates=DEFAULT_RATES, now=NOW)
    assert (found.provider, found.matched, found.foreign_usd) == ("azure", 3, Decimal(1))
    (difference,) = found.differences
    assert (difference.ours_usd, difference.billed_usd) == (Decimal(12), Decimal("12.37"))
    assert difference.why == ("no disk in our ledger", "no address in our ledger")


def test_older_azure_columns_and_another_currency(street: Store, tmp_path: Path) -> None:
    rows = [{OLD_NAMES.get(name, name): value for name, value in row.items()} for row in azure_rows()]
    rows = [row | {"Currency": "JPY", "UsageDateTime": "2026-03-04"} for row in rows]
    path = write_csv(tmp_path / "old.csv", [OLD_NAMES.get(name, name) for name in AZURE], rows)
    (found,) = import_bills(street, [path], rates=DEFAULT_RATES, now=NOW)
    assert found.differences[0].billed_usd == sum(Decimal(each) / 110 for each in ("12", "0.25", "0.12"))
    with pytest.raises(UsageError, match="JPY"):
        import_bills(street, [path], rates={"USD": Decimal(1)}, now=NOW)


def reasons(store: Store, tmp_path: Path, *rows: dict[str, str]) -> dict[str, tuple[str, ...]]:
    path = write_csv(tmp_path / "cur.csv", CUR, list(rows))
    (found,) = import_bills(store, [path], rates=DEFAULT_RATES, now=NOW)
    return {each.machine: each.why for each in found.differences}


def test_the_reasons_of_a_difference(store: Store, tmp_path: Path) -> None:
    for name in ("longer", "absent", "extra", "unknown", "taxed", "sent", "guessed"):
        store.add_machine(a_machine(name, id=f"i-{name}"))
    store.add_charges([
        a_charge(machine="longer"),
        a_charge(machine="absent"),
        a_charge(machine="unknown", unit_price_usd=None),
        a_charge(machine="taxed"),
        *(a_charge(machine=name) for name in ("sent", "guessed")),
        a_charge(machine="guessed", what="egress", unit="GB", quantity=Decimal(20),
                 unit_price_usd=Decimal("0.09"), estimated=True),
    ])  # fmt: skip

    def usage(name: str, cost: str, **more: str) -> dict[str, str]:
        return cur_row(START, "BoxUsage:p2.xlarge", cost, lineItem__ResourceId=f"i-{name}", **more)

    found = reasons(
        store, tmp_path,
        usage("longer", "0.72", lineItem__UsageAmount="2"),
        usage("extra", "0.36"),
        usage("unknown", "0.36"),
        usage("taxed", "0.36"),
        usage("taxed", "0.04", lineItem__LineItemType="Tax"),
        usage("sent", "0.36"),
        cur_row(START, "DataTransfer-Out-Bytes", "0.9", lineItem__ResourceId="i-sent"),
        usage("guessed", "0.36"),
    )  # fmt: skip
    assert found == {
        "longer": ("2.00 h billed, 1.00 h counted",),
        "absent": ("not on the bill for these days",),
        "extra": ("not in our ledger for these days",),
        "unknown": ("a price of ours was unknown", "no compute in our ledger"),
        "taxed": ("tax 0.04 USD, which we do not count",),
        "sent": ("egress: 0.00 USD by our estimate, 0.90 billed",),
        "guessed": ("egress: 1.80 USD by our estimate, 0.00 billed",),
    }


def test_a_disk_that_is_not_on_the_bill_asks_for_the_tag(bench: Store, tmp_path: Path) -> None:
    hours = [
        cur_row(START, "SpotUsage:p2.xlarge", "0.4", lineItem__ResourceId="i-0abc", lineItem__UsageAmount=2)
    ]
    assert reasons(bench, tmp_path, *hours) == {
        "bench": (
            "no disk on the bill: is the tag cloudrun-name active for cost allocation?",
            "no address on the bill: is the tag cloudrun-name active for cost allocation?",
        )
    }


def test_only_the_days_of_the_bill_are_compared_and_open_lines_count(bench: Store, cur: Path) -> None:
    later = START + timedelta(days=3)
    bench.add_charges([a_charge(opened_at=later, closed_at=later + HOUR), a_charge(closed_at=None)])
    (found,) = import_bills(bench, [cur], rates=DEFAULT_RATES, now=NOW)
    assert (found.first_day, found.last_day) == (START.date(), START.date())
    assert found.differences[0].ours_usd == Decimal("0.431918") + 12 * Decimal("0.36")


def test_the_command_and_the_report_after_it(cli: Cli, bench: Store, cur: Path) -> None:
    said = cli("cost", "import", str(cur))
    assert said.code == 0
    assert "+0.10" in said.out
    assert "6 lines of our machines, 6 new, 0 changed" in said.err
    assert "3.21 USD on lines that are not of our machines" in said.err
    shown = cli("cost", "report", "--by", "machine").out
    assert "BILLED" in shown
    assert "0.53" in shown
    assert cli("cost", "report", "--json").json["total"]["billed_usd"] == 0.531918
    found = cli("cost", "import", str(cur), "--json").json
    assert found[0]["machines"][0]["why"] == ["0.2500 USD/h billed, 0.2000 counted"]


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_screen(
    cli: Cli, bench: Store, cur: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert max(map(len, cli("cost", "import", str(cur)).out.splitlines())) <= columns


HEADER = ",".join(CUR)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"a,b\n1,2\n", "no bill that is known"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "no CSV"),
        (b"\x1f\x8b\x08\x00garbage", "cannot be unpacked"),
        (b"PK\x03\x04garbage", "cannot be unpacked"),
        (
            b"lineItem/UnblendedCost,lineItem/UsageStartDate\n1,2026-03-04\n",
            "has no column lineItem/ResourceId",
        ),
        (f"{HEADER}\n{'x,' * 10}not-a-day{',1' * 20}\n".encode(), "line 2"),
        (f"{HEADER}\n{'x,' * 10}2026-03-04T00:00:00Z{',much' * 20}\n".encode(), "line 2"),
        (f"{HEADER}\n{'x,' * 10}2026-03-04T00:00:00Z,2026-03-04T01:00:00Z{',NaN' * 19}\n".encode(), "line 2"),
    ],
)
def test_what_is_no_bill_is_said_and_nothing_is_kept(
    cli: Cli, bench: Store, tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "bill.csv"
    path.write_bytes(content)
    answer = cli("cost", "import", str(path))
    assert answer.code == 2
    assert said in answer.err
    assert "hint:" in answer.err
    assert bench.list_billed() == []


def test_a_file_that_is_not_there_and_a_folder(cli: Cli, tmp_path: Path) -> None:
    for name in ("nothing.csv", "."):
        answer = cli("cost", "import", str(tmp_path / name))
        assert answer.code == 2
        assert "hint:" in answer.err


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_are_more_than_a_refusal(tmp_path: Path, garbage: bytes, headed: bool) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes((HEADER.encode() + b"\n" if headed else b"") + garbage)
    with suppress(UsageError):
        list(read_bill(path))
