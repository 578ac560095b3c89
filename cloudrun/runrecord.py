"""run.json: what the plan ordered, read back by each walk, and how far the run has come."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cloudrun.attempts import Order
from cloudrun.context import Context
from cloudrun.errors import MachineError
from cloudrun.models import Run
from cloudrun.records import from_json, to_json

NO_LOCKS: Mapping[str, Mapping[str, str]] = MappingProxyType({})


def load_order(ctx: Context, run: Run) -> Order:
    """What the plan ordered, read back from run.json."""
    try:
        return from_json(Order, ctx.files(run).load_record()["order"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MachineError(
            f"{ctx.files(run).record} cannot be read: {error}",
            hint="submit the job again; its code is in `clone`",
        ) from error


def save_record(ctx: Context, run: Run, *, locks: Mapping[str, Mapping[str, str]] = NO_LOCKS) -> None:
    """Keep run.json up with the store's rows. locks: what an attempt's machine holds, by number."""
    files = ctx.files(run)
    files.save_record(
        {
            "run": to_json(run),
            "order": to_json(load_order(ctx, run)),
            "attempts": to_json(ctx.store.list_attempts(run.id)),
            "charges": to_json(ctx.store.list_charges(run=run.id)),
            "stack_locks": {**files.stack_locks(), **locks},
        }
    )
