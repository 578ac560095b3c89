"""The shipped facts: instance types, prices with their dates, billing rules. README.md has the sources."""

from cloudrun.catalog.loader import (
    BillingRule,
    InstanceType,
    find_type,
    list_types,
    load_billing,
    resolve_type,
)
from cloudrun.catalog.prices import (
    address_rule,
    between_rule,
    disk_rule,
    load_offers,
    make_offer,
    running_cost_per_hour_usd,
    snapshot_rule,
    storage_rule,
    successors,
    type_warning,
    wanted_types,
)

__all__ = [
    "BillingRule",
    "InstanceType",
    "address_rule",
    "between_rule",
    "disk_rule",
    "find_type",
    "list_types",
    "load_billing",
    "load_offers",
    "make_offer",
    "resolve_type",
    "running_cost_per_hour_usd",
    "snapshot_rule",
    "storage_rule",
    "successors",
    "type_warning",
    "wanted_types",
]
