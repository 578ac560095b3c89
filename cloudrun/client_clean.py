"""The verbs of housekeeping, of the Python API: pin, clean, undo. `Client` has them all; see there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloudrun.client_machines import MachineVerbs
from cloudrun.events import OnEvent, Progress, ignore
from cloudrun.models import Run

if TYPE_CHECKING:
    from pathlib import Path

    from cloudrun.cleaning import Choice, Cleaned, Cleanup
    from cloudrun.cleaning_datasets import DataCleanup


class CleanVerbs(MachineVerbs):
    """The part of Client that clears up. All raise Refused while another process does the same."""

    def pin(self, run: str, *, pinned: bool = True) -> Run:
        """Keep all of a run from every clean-up, or no longer. Idempotent."""
        from cloudrun import cleaning

        found = self.store.find_run(run)
        cleaning.pin(self.settings, found.id, pinned=pinned)
        return found

    def plan_cleanup(self, choice: Choice) -> Cleanup:
        """What a clean-up would take, measured. Changes nothing. Raises UsageError for an unknown metric."""
        from cloudrun import cleaning

        return cleaning.plan_cleanup(self.settings, choice, now=datetime.now(UTC))

    def clean(self, cleanup: Cleanup, *, on_event: OnEvent | None = None) -> Cleaned:
        """Move what was planned into the trash (blocking). Interrupted, plan and clean again."""
        from cloudrun import cleaning

        emit = on_event or ignore
        return cleaning.clean(
            self.settings,
            cleanup,
            now=datetime.now(UTC),
            on_bytes=lambda done, total: emit(Progress("clean", done, total)),
        )

    def plan_machine_cleanup(
        self, choice: Choice, *, on: str = "", on_event: OnEvent | None = None
    ) -> Cleanup:
        """What a clean-up would take on a machine; without a name on every one that runs (blocking; one
        command for each machine). Changes nothing."""
        from cloudrun import cleaning_machines

        ctx = self.context(on_event=on_event)
        name = self.machine(on).name if on else ""
        return cleaning_machines.plan_cleanup(ctx, choice, name=name, now=datetime.now(UTC))

    def clean_machines(self, cleanup: Cleanup, *, on_event: OnEvent | None = None) -> Cleaned:
        """Delete for good what was planned on machines (blocking). Interrupted, plan and clean again."""
        from cloudrun import cleaning_machines

        return cleaning_machines.clean(self.context(on_event=on_event), cleanup)

    def plan_bucket_cleanup(
        self, choice: Choice, *, address: str = "", on_event: OnEvent | None = None
    ) -> Cleanup:
        """What a clean-up would take in a bucket; without its address in all that runs or settings name
        (blocking). Changes nothing. Raises UsageError for code, which is in no bucket."""
        from cloudrun import cleaning_buckets

        return cleaning_buckets.plan_cleanup(
            self.settings, choice, address=address, now=datetime.now(UTC), on_event=on_event or ignore
        )

    def clean_buckets(self, cleanup: Cleanup, *, on_event: OnEvent | None = None) -> Cleaned:
        """Delete for good what was planned in buckets (blocking). Interrupted, plan and clean again."""
        from cloudrun import cleaning_buckets

        return cleaning_buckets.clean(self.settings, cleanup, on_event=on_event or ignore)

    def plan_data_cleanup(
        self, *, older_than: timedelta | None = None, larger_than_bytes: int = 0
    ) -> DataCleanup:
        """The versions of datasets that no run at home was given, and what deleting them frees."""
        from cloudrun import cleaning_datasets

        return cleaning_datasets.plan_cleanup(
            self.settings,
            older_than=older_than,
            larger_than_bytes=larger_than_bytes,
            active=self._active(),
            now=datetime.now(UTC),
        )

    def clean_data(self, cleanup: DataCleanup) -> tuple[int, int]:
        """Move them into the trash; how many, and the bytes. Interrupted, plan and clean again."""
        from cloudrun import cleaning_datasets

        return cleaning_datasets.clean(self.settings, cleanup, active=self._active(), now=datetime.now(UTC))

    def undo_clean(self) -> tuple[Path, list[str]]:
        """Put back what the newest clean-up took; its folder, and the paths that something else has by now.
        Raises NotFound with nothing to undo."""
        from cloudrun.trash import Trash

        trash = Trash(self.settings.home)
        with trash.working():
            if not trash.holds("datasets"):
                return trash.put_back()
            from cloudrun import datasets

            with datasets.alone(self.settings):
                return trash.put_back()

    def trash_size(self) -> tuple[int, int]:
        """Bytes and files in the trash."""
        from cloudrun.trash import Trash

        return Trash(self.settings.home).measure()

    def empty_trash(self) -> tuple[int, int]:
        """Delete what is in the trash for good (blocking); bytes and files. Interrupted, call it again."""
        from cloudrun.trash import Trash

        trash = Trash(self.settings.home)
        with trash.working():
            return trash.empty()

    def _active(self) -> set[str]:
        return {run.id for run in self.store.list_runs(active=True)}
