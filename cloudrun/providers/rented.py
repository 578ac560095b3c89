"""A rented machine rebuilt from what its cloud shows of it: the parts that are the same at every cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from cloudrun.config import Settings
from cloudrun.keys import LOGIN_KEY, host_key_lines
from cloudrun.models import LaunchSpec, Machine, SshAddress
from cloudrun.providers import tags as t


def told_by(tags: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a Machine that its tags alone tell."""
    return {
        "token": tags.get(t.TOKEN, ""),
        "stack": tags.get(t.STACK, ""),
        "price_per_hour_usd": _price(tags.get(t.PRICE, "")),
        "deadline_at": t.time_of(tags.get(t.DEADLINE, "")),
        "idle_minutes": _minutes(tags.get(t.IDLE_MINUTES, "")),
        "run_owned": tags.get(t.RUN_OWNED) == "1",
        "disk_gb": int(tags[t.DISK_GB]) if tags.get(t.DISK_GB, "").isdigit() else 0,
    }


def image_told_by(tags: Mapping[str, str], size_gb: int, price_usd: Decimal | None) -> dict[str, Any]:
    """The fields of an OwnImage that its tags tell; price_usd is that of a GB-month of what is stored."""
    told = tags.get(t.STORED_GB, "")
    stored_gb = int(told) if told.isdecimal() else size_gb
    return {
        "stack": tags.get(t.STACK, ""),
        "stack_hash": tags.get(t.STACK_HASH, ""),
        "owner": tags.get(t.OWNER, ""),
        "size_gb": size_gb,
        "stored_gb": stored_gb,
        "price_per_month_usd": None if price_usd is None else price_usd * stored_gb,
    }


def as_asked(machine: Machine, spec: LaunchSpec) -> Machine:
    """A machine just launched. The offer's facts count: it may know what the catalogue does not."""
    offer = spec.offer
    return replace(
        machine,
        price_per_hour_usd=offer.price_per_hour_usd,
        deadline_at=spec.guard.deadline_at,
        idle_minutes=spec.guard.idle_minutes,
        gpu=offer.gpu,
        gpu_count=offer.gpu_count,
        gpu_memory_gib=offer.gpu_memory_gib,
        gpu_capability=offer.gpu_capability,
    )


def fact(machine: Machine, name: str) -> str:
    """One of the provider's own facts about a machine, "" where it is not known."""
    return dict(machine.detail).get(name, "")


def ssh_address(settings: Settings, name: str, host: str, user: str) -> SshAddress:
    """How a rented machine of that name is reached, with the keys that this computer has for it."""
    folder = settings.keys_dir / name
    return SshAddress(
        host=host,
        port=settings.ssh_port,
        user=user,
        key_path=folder / LOGIN_KEY,
        host_key=host_key_lines(folder),
    )


def _price(text: str) -> Decimal | None:
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() and found > 0 else None


def _minutes(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
