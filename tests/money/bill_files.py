"""Bills written by hand in the published formats: their real column names, and lines of one machine."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

# The order and names of a Cost and Usage Report with resource ids (AWS data dictionary), columns of products
# left out; the last column is a tag that was made active for cost allocation.
CUR = next(csv.reader([
    "identity/LineItemId,identity/TimeInterval,bill/InvoiceId,bill/BillingEntity,bill/BillType,"
    "bill/PayerAccountId,bill/BillingPeriodStartDate,bill/BillingPeriodEndDate,lineItem/UsageAccountId,"
    "lineItem/LineItemType,lineItem/UsageStartDate,lineItem/UsageEndDate,lineItem/ProductCode,"
    "lineItem/UsageType,lineItem/Operation,lineItem/AvailabilityZone,lineItem/ResourceId,lineItem/UsageAmount,"
    "lineItem/NormalizationFactor,lineItem/CurrencyCode,lineItem/UnblendedRate,lineItem/UnblendedCost,"
    "lineItem/BlendedRate,lineItem/BlendedCost,lineItem/LineItemDescription,lineItem/TaxType,"
    "product/instanceType,product/region,pricing/term,pricing/unit,resourceTags/user:cloudrun-name"
]))  # fmt: skip

# An export of actual costs (Azure's cost and usage details schema), some columns left out.
AZURE = next(csv.reader([
    "InvoiceSectionName,AccountName,SubscriptionId,SubscriptionName,ResourceGroup,ResourceLocation,Date,"
    "ProductName,MeterCategory,MeterSubCategory,MeterId,MeterName,MeterRegion,UnitOfMeasure,Quantity,"
    "EffectivePrice,CostInBillingCurrency,CostCenter,ConsumedService,ResourceId,Tags,AdditionalInfo,"
    "ServiceInfo1,ServiceInfo2,ResourceName,ReservationId,ReservationName,UnitPrice,PublisherType,"
    "ChargeType,BillingCurrencyCode,BillingPeriodStartDate,BillingPeriodEndDate,PricingModel"
]))  # fmt: skip


def cur_row(start: datetime, usage: str, cost: str, **more: Any) -> dict[str, str]:
    """One hour of something."""
    end = start + timedelta(hours=1)
    times = [f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in (start, end)]
    plain = {
        "identity/LineItemId": f"id{start:%d%H}{usage}",
        "identity/TimeInterval": "/".join(times),
        "bill/PayerAccountId": "123456789012",
        "lineItem/UsageAccountId": "123456789012",
        "lineItem/LineItemType": "Usage",
        "lineItem/UsageStartDate": times[0],
        "lineItem/UsageEndDate": times[1],
        "lineItem/ProductCode": "AmazonEC2",
        "lineItem/UsageType": usage,
        "lineItem/Operation": "RunInstances",
        "lineItem/UsageAmount": "1.0000000000",
        "lineItem/CurrencyCode": "USD",
        "lineItem/UnblendedCost": cost,
        "pricing/unit": "Hrs",
    }
    return plain | {name.replace("__", "/"): str(value) for name, value in more.items()}


def azure_row(day: str, resource: str, category: str, cost: str, **more: Any) -> dict[str, str]:
    plain = {
        "SubscriptionId": "11111111-2222-3333-4444-555555555555",
        "Date": day,
        "MeterCategory": category,
        "UnitOfMeasure": "1 Hour",
        "Quantity": "24",
        "CostInBillingCurrency": cost,
        "ResourceId": resource,
        "ChargeType": "Usage",
        "BillingCurrencyCode": "USD",
    }
    return plain | {name: str(value) for name, value in more.items()}


def write_csv(path: Path, names: list[str], rows: list[dict[str, str]], *, mark: bool = False) -> Path:
    """With `mark` a byte order mark in front, as Azure writes it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8-sig" if mark else "utf-8", newline="")
    return path
