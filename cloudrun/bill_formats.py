"""Providers' bills as files: AWS Cost and Usage Reports and Azure's cost exports become lines of one kind.

Column names as published: AWS's data dictionary (docs.aws.amazon.com/cur: line item, bill, pricing and
resource tag columns; older reports write lineItem/UnblendedCost, Parquet and CUR 2.0
line_item_unblended_cost) and Azure's cost and usage details schemas (learn.microsoft.com, dataset-schema;
CostInBillingCurrency, in older exports PreTaxCost, each also in lowerCamelCase). Names are compared by their
letters and digits alone.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from cloudrun.errors import UsageError
from cloudrun.images import charged_as

MOST_FIELD = 10_000_000  # characters of one cell; a file without commas is no bill
HINT = (
    "an AWS Cost and Usage Report with resource ids (CSV, gzip, zip, Parquet), or Azure's cost export (CSV)"
)
# cloudrun-name and cloudrun-image, as columns and maps spell them in the end; under what each is counted.
_TAGS: Mapping[str, Callable[[str], str]] = {"cloudrunname": str, "cloudrunimage": charged_as}
_US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_HOURS = re.compile(r"(1 )?h(ou)?rs?", re.IGNORECASE)

# Not identity/LineItemId: it is another in every version of a report, by AWS's own word.
_AWS_IDENTITY = (
    "billpayeraccountid",
    "lineitemproductcode",
    "lineitemoperation",
    "lineitemlineitemdescription",
    "lineitemtaxtype",
)
_AZURE_IDENTITY = ("meterid", "servicename", "effectiveprice", "pricingmodel")

Cells = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BillLine:
    """One line of a bill.

    what: compute, disk, address, egress, snapshot or other; for lines that are no usage the bill's own word:
    tax, credit, refund, ... name: by a tag that of the machine, or what the image is charged as; "" without.
    last_day: the last one that it is about. identity: what makes the same line the same again in a later
    version of the bill.
    """

    provider: str
    account: str
    resource: str
    name: str
    what: str
    usage: str
    day: date
    last_day: date
    quantity: Decimal
    unit: str
    cost: Decimal
    currency: str
    identity: tuple[str, ...]

    @property
    def hours(self) -> Decimal | None:
        """Of compute; None where the unit is another."""
        return self.quantity if _HOURS.fullmatch(self.unit) else None


def read_bill(path: Path) -> Iterator[BillLine]:
    """The lines of a bill in their order, as they are read. Raises UsageError with the file and line for
    whatever is no bill."""
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise UsageError(f"{path}: it is empty", hint=f"expected {HINT}")
    to_line = _reader(path, first[1])
    for number, cells in _again(first, rows):
        try:
            line = to_line(cells)
        except (ValueError, InvalidOperation, KeyError, TypeError) as error:
            raise UsageError(f"{path}: line {number}: {_said(error)}", hint="is the file whole?") from error
        if line is not None:
            yield line


def squash(name: str) -> str:
    """Letters and digits in lower case: lineItem/UnblendedCost and line_item_unblended_cost are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# --- which kind of bill ------------------------------------------------------------------


def _reader(path: Path, cells: Cells) -> Callable[[Cells], BillLine | None]:
    if "lineitemunblendedcost" in cells:
        _demand(path, cells, {"lineitemresourceid": "lineItem/ResourceId", "lineitemusagestartdate": ""})
        return _aws_line
    if _azure_cost(cells) and "metercategory" in cells:
        _demand(
            path,
            cells,
            {("resourceid", "instanceid"): "ResourceId", ("date", "usagedatetime", "usagedate"): "Date"},
        )
        return _azure_line
    raise UsageError(f"{path}: no bill that is known here", hint=f"expected {HINT}")


def _demand(path: Path, cells: Cells, wanted: Mapping[Any, str]) -> None:
    for names, shown in wanted.items():
        if not any(name in cells for name in (names if isinstance(names, tuple) else (names,))):
            raise UsageError(
                f"{path}: the bill has no column {shown or names}",
                hint="have the report made with resource ids; they tell what was billed for which machine",
            )


# --- AWS ---------------------------------------------------------------------------------


def _aws_line(cells: Cells) -> BillLine | None:
    start, end = _moment(cells["lineitemusagestartdate"]), _moment(cells.get("lineitemusageenddate"))
    kind = _text(cells.get("lineitemlineitemtype")) or "Usage"
    usage = _text(cells.get("lineitemusagetype"))
    if start is None:
        return None
    end = max(start, (end or start) - timedelta(microseconds=1))
    resource = _text(cells["lineitemresourceid"])
    account = _text(cells.get("lineitemusageaccountid") or cells.get("billpayeraccountid"))
    return BillLine(
        provider="aws",
        account=account,
        resource=resource.rpartition("/")[2] if resource.startswith("arn:") else resource,
        name=_aws_name(cells),
        what=_aws_what(usage) if kind.endswith("Usage") else kind.lower(),
        usage=usage,
        day=start.date(),
        last_day=end.date(),
        quantity=_number(cells.get("lineitemusageamount")),
        unit=_text(cells.get("pricingunit")) or ("Hrs" if _aws_what(usage) == "compute" else ""),
        cost=_number(cells["lineitemunblendedcost"]),
        currency=_text(cells.get("lineitemcurrencycode")) or "USD",
        identity=(
            *(_text(cells.get(name)) for name in _AWS_IDENTITY),
            account, resource, kind, usage, start.isoformat(), end.isoformat(),
        ),
    )  # fmt: skip


def _aws_what(usage: str) -> str:
    """From the usage type, which may begin with a region: USE1-BoxUsage:p2.xlarge."""
    for word, what in (
        ("BoxUsage", "compute"),
        ("SpotUsage", "compute"),
        ("SnapshotUsage", "snapshot"),
        ("EBS:", "disk"),
        ("PublicIPv4", "address"),
        ("ElasticIP", "address"),
        ("DataTransfer", "egress"),
    ):
        if word in usage:
            return what
    return "other"


def _aws_name(cells: Cells) -> str:
    """The tag in a column of its own, or in the map of CUR 2.0."""
    for tag, counted_as in _TAGS.items():
        for column in ("resourcetagsuser" + tag, "resourcetags" + tag):
            if cells.get(column):
                return counted_as(_text(cells[column]))
    tags = cells.get("resourcetags") or cells.get("tags")
    return _tagged(tags) if tags else ""


# --- Azure -------------------------------------------------------------------------------


def _azure_line(cells: Cells) -> BillLine | None:
    day = _moment(_first(cells, "date", "usagedatetime", "usagedate"))
    if day is None:
        return None
    names = [_text(cells.get(name)) for name in ("metercategory", "metersubcategory", "metername")]
    kind = _text(cells.get("chargetype")) or "Usage"
    resource = _text(_first(cells, "resourceid", "instanceid"))
    account = _text(_first(cells, "subscriptionid", "subscriptionguid"))
    return BillLine(
        provider="azure",
        account=account,
        resource=resource,
        name=_tagged(cells.get("tags") or ""),
        what=_azure_what(*names) if kind == "Usage" else kind.lower(),
        usage=", ".join(name for name in names if name),
        day=day.date(),
        last_day=day.date(),
        quantity=_number(_first(cells, "quantity", "usagequantity")),
        unit=_text(cells.get("unitofmeasure")),
        cost=_number(_azure_cost(cells)),
        currency=_text(_first(cells, "billingcurrency", "billingcurrencycode", "currency")) or "USD",
        identity=(
            *(_text(cells.get(name)) for name in _AZURE_IDENTITY),
            account, resource.lower(), kind, *names, day.date().isoformat(),
        ),
    )  # fmt: skip


def _azure_cost(cells: Cells) -> object:
    """The cost, in the currency that is billed; "0" counts as one, a missing column does not."""
    names = ("costinbillingcurrency", "pretaxcost", "cost")
    return next((cells[name] or "0" for name in names if name in cells), "")


def _azure_what(category: str, subcategory: str, meter: str) -> str:
    if category == "Virtual Machines":
        return "compute"
    if category == "Storage":
        if "snapshot" in meter.lower():
            return "snapshot"
        return "disk" if "disk" in f"{subcategory} {meter}".lower() else "other"
    if category == "Virtual Network":
        return (
            "address"
            if "ip" in f"{subcategory} {meter}".lower().split() or "IP Address" in subcategory
            else "other"
        )
    return "egress" if category == "Bandwidth" else "other"


# --- cells -------------------------------------------------------------------------------


def _first(cells: Cells, *names: str) -> object:
    return next((cells[name] for name in names if cells.get(name)), "")


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _number(value: object) -> Decimal:
    """An empty cell is 0, as in lines that carry no quantity."""
    text = _text(value).replace(",", "")
    number = Decimal(text) if text else Decimal(0)
    if not number.is_finite() or abs(number) > Decimal("1e15"):
        raise ValueError(f"{text} is no amount")
    return number


def _moment(value: object) -> datetime | None:
    """2026-03-04T00:00:00Z, 2026-03-04 00:00:00, 2026-03-04, 20260304, and 03/04/2026 as Azure writes it."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    text = _text(value)
    if not text:
        return None
    american = _US_DATE.fullmatch(text)
    if american:
        month, day, year = (int(part) for part in american.groups())
        return datetime(year, month, day, tzinfo=UTC)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _tagged(tags: object) -> str:
    """What our tags say in a map, in JSON, or in Azure's JSON without its braces; "" where it cannot be
    read."""
    if isinstance(tags, str):
        text = tags.strip()
        try:
            tags = json.loads(text if text.startswith(("{", "[")) else "{" + text + "}")
        except ValueError:
            return ""
    pairs: Iterable[Any] = (
        tags.items() if isinstance(tags, Mapping) else tags if isinstance(tags, list) else ()
    )
    named = [pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
    said = (
        counted_as(_text(value))
        for tag, counted_as in _TAGS.items()
        for key, value in named
        if squash(str(key)).endswith(tag)
    )
    return next(said, "")


# --- files -------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[tuple[int, Cells]]:
    """(line, cells by squashed name) of each row."""
    if path.suffix.lower() == ".parquet" or _begins(path) == b"PAR1":
        yield from _parquet_rows(path)
        return
    with _explained(path), _open(path) as file:
        csv.field_size_limit(MOST_FIELD)
        reader = csv.reader(file)
        header = [squash(name) for name in next(reader, [])]
        for row in reader:
            if len(row) > 1:
                yield reader.line_num, dict(zip(header, row, strict=False))


def _parquet_rows(path: Path) -> Iterator[tuple[int, Cells]]:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError(
            f"{path}: Parquet needs pyarrow", hint="pip install pyarrow, or have the report written as CSV"
        ) from error
    number = 0
    with _explained(path):
        try:
            for batch in parquet.ParquetFile(path).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, {squash(name): value for name, value in row.items()}
        except pyarrow.ArrowException as error:
            raise UsageError(f"{path}: {error}", hint="is the file whole?") from error


def _begins(path: Path) -> bytes:
    with _explained(path), path.open("rb") as file:
        return file.read(4)


@contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    """As text, whatever it is packed in. A byte order mark, as Azure writes it, is no part of a name."""
    head = _begins(path)
    if head[:2] == b"\x1f\x8b":
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    elif head == b"PK\x03\x04":
        with zipfile.ZipFile(path) as packed:
            names = [name for name in packed.namelist() if name.lower().endswith(".csv")]
            if len(names) != 1:
                raise UsageError(f"{path}: {len(names)} CSV files in it", hint="unpack it and name them")
            with packed.open(names[0]) as raw:
                yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: this is no CSV: {_said(error)}", hint=f"expected {HINT}") from error
    except (
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise UsageError(f"{path}: it cannot be unpacked: {_said(error)}", hint="fetch it again") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", hint="name the file of a bill") from error


def _again(first: tuple[int, Cells], rest: Iterator[tuple[int, Cells]]) -> Iterator[tuple[int, Cells]]:
    yield first
    yield from rest


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
