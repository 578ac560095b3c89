"""Records as the JSON objects that scripts read. Fields are added, never renamed or dropped.

Money is a number of US dollars (null: unknown), a time is ISO 8601 in UTC, a missing text is "".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cloudrun.errors import CloudrunError
from cloudrun.models import BundleFile, Machine, Offer, Plan, Run

if TYPE_CHECKING:
    from cloudrun.health import Finding
    from cloudrun.images import OwnImage
    from cloudrun.images_bake import Bake
    from cloudrun.images_list import Listed

Shape = dict[str, Any]
BIGGEST = 10


def run_shape(run: Run, *, attempts: int) -> Shape:
    metric = {"name": run.metric_name, "value": run.metric_value, "direction": run.metric_direction}
    return {
        "id": run.id,
        "job": run.job,
        "project": run.project,
        "machine": run.machine,
        "state": run.state.value,
        "stage": run.stage.value,
        "exit_code": run.exit_code,
        "message": run.message,
        "submitted_at": time_shape(run.submitted_at),
        "started_at": time_shape(run.started_at),
        "ended_at": time_shape(run.ended_at),
        "metric": metric if run.metric_name else None,
        "attempts": attempts,
        "outputs_bytes": run.outputs_bytes,
        "cost_usd": money_shape(run.cost_usd),
    }


def machine_shape(machine: Machine, *, cost_usd: Decimal | None, runs: Sequence[str]) -> Shape:
    return {
        "name": machine.name,
        "id": machine.id,
        "provider": machine.provider,
        "region": machine.region,
        "zone": machine.zone,
        "type": machine.type,
        "market": machine.market.value,
        "state": machine.state.value,
        "host": machine.address.host if machine.address else "",
        "stack": machine.stack,
        "price_per_hour_usd": money_shape(machine.price_per_hour_usd),
        "launched_at": time_shape(machine.launched_at),
        "deadline_at": time_shape(machine.deadline_at),
        "cost_usd": money_shape(cost_usd),
        "runs": list(runs),
    }


def finding_shape(finding: Finding) -> Shape:
    return {
        "check": finding.check,
        "ok": finding.ok,
        "severity": finding.severity.value,
        "detail": finding.detail,
        "hint": finding.hint,
        "steps": list(finding.steps),
        "mended": finding.mended,
    }


def offer_shape(offer: Offer) -> Shape:
    return {
        "provider": offer.provider,
        "region": offer.region,
        "zone": offer.zone,
        "type": offer.type,
        "market": offer.market.value,
        "price_per_hour_usd": money_shape(offer.price_per_hour_usd),
        "price_as_of": _date(offer.price_as_of),
        "gpu": offer.gpu,
        "gpu_count": offer.gpu_count,
        "gpu_memory_gib": offer.gpu_memory_gib,
        "fits": offer.fits,
        "why_not": offer.why_not,
        "quoted": {currency: money_shape(price) for currency, price in offer.quoted},
    }


def own_image_shape(image: OwnImage) -> Shape:
    return {
        "provider": image.provider,
        "region": image.region,
        "id": image.id,
        "name": image.name,
        "state": image.state.value,
        "stack": image.stack,
        "stack_hash": image.stack_hash,
        "created_at": time_shape(image.created_at),
        "size_gb": image.size_gb,
        "price_per_month_usd": money_shape(image.price_per_month_usd),
    }


def listed_image_shape(listed: Listed) -> Shape:
    return {
        **own_image_shape(listed.image),
        "machines": list(listed.machines),
        "unused": listed.unused,
        "why_unused": listed.idle,
    }


def bake_shape(bake: Bake) -> Shape:
    offer = bake.candidates[0]
    return {
        "name": bake.name,
        "stack": bake.stack.name,
        "stack_hash": bake.stack_hash,
        "provider": offer.provider,
        "region": offer.region,
        "type": offer.type,
        "market": offer.market.value,
        "price_per_hour_usd": money_shape(offer.price_per_hour_usd),
        "worst_case_usd": money_shape(bake.worst_case_usd),
        "price_per_gb_month_usd": money_shape(bake.price_per_gb_month_usd),
    }


def output_shape(file: BundleFile) -> Shape:
    return {"path": file.path, "size_bytes": file.size, "sha256": file.sha256}


def plan_shape(plan: Plan) -> Shape:
    bundle = plan.bundle
    biggest = sorted(bundle.files, key=lambda file: file.size, reverse=True)[:BIGGEST]
    return {
        "job": plan.job.name,
        "preset": plan.preset,
        "args": list(plan.args),
        "stack": plan.stack.name,
        "machine": plan.machine,
        "target_reason": plan.target_reason,
        "candidates": [offer_shape(offer) for offer in plan.candidates],
        "max_hours": plan.max_hours,
        "budget_usd": money_shape(plan.budget_usd),
        "worst_case_usd": money_shape(plan.worst_case_usd),
        "disk_gb": plan.disk_gb,
        "keep": plan.keep,
        "outputs_to": plan.outputs_to,
        "bundle": {
            "digest": bundle.digest,
            "files": len(bundle.files),
            "size_bytes": bundle.size_bytes,
            "biggest": [output_shape(file) for file in biggest],
            "ignored": [{"path": item.path, "rule": item.rule} for item in bundle.ignored],
            "secrets": list(bundle.secrets),
        },
        "data": [
            {
                "source": data.source,
                "mount": data.mount,
                "digest": data.digest,
                "files": data.files,
                "size_bytes": data.size_bytes,
                "url": data.url,
            }
            for data in plan.data
        ],
        "warnings": list(plan.warnings),
        "stages": [{"stage": stage.value, "seconds": round(s, 6)} for stage, s in plan.stage_seconds],
    }


def error_shape(error: CloudrunError) -> Shape:
    return {
        "error": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def time_shape(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _date(day: date | None) -> str | None:
    return day.isoformat() if day else None


def money_shape(amount: Decimal | None) -> float | None:
    """US dollars as JSON has them."""
    return None if amount is None else round(float(amount), 6)
