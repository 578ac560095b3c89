"""The verbs of outputs that are in a bucket too: push, look, fetch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloudrun.client_machines import MachineVerbs
from cloudrun.errors import NotFound, Refused
from cloudrun.events import OnEvent, Progress, ignore
from cloudrun.models import BundleFile
from cloudrun.runfiles import RunFiles

if TYPE_CHECKING:
    from cloudrun.providers.base import Bucket


class OutputVerbs(MachineVerbs):
    """The part of Client that knows of outputs elsewhere. Errors are those of base.Bucket."""

    def outputs_place(self, run: str) -> str:
        """The address of the bucket where the run's outputs go too; "" for none. Also where the run's files
        at home were cleaned away."""
        return RunFiles(self.settings, self.store.find_run(run).id).outputs_place()

    def bucket_outputs(self, run: str) -> list[BundleFile]:
        """What the run's bucket has of its outputs, whole and by path (blocking); [] without a bucket."""
        from cloudrun import bucket_outputs

        bucket = self._bucket_of(run)
        found = bucket_outputs.read_manifest(bucket, self.store.find_run(run).id) if bucket else {}
        return [found[path] for path in sorted(found)]

    def fetch_outputs(self, run: str, *, path: str = "", on_event: OnEvent | None = None) -> int:
        """Bring home what is in the bucket and not here, or that file or folder of it alone (blocking).
        Returns the bytes fetched. Raises TransferFailed for content that was damaged."""
        from cloudrun import bucket_outputs

        bucket, found, emit = self._bucket_of(run), self.store.find_run(run), on_event or ignore
        if bucket is None:
            return 0
        wanted = _below(path, list(bucket_outputs.read_manifest(bucket, found.id).values()))
        return bucket_outputs.fetch(
            bucket,
            found.id,
            wanted,
            RunFiles(self.settings, found.id).outputs,
            progress=lambda done, total: emit(Progress("fetch", done, total)),
        )

    def push_outputs(self, run: str, *, on_event: OnEvent | None = None) -> int:
        """Store in the run's bucket what is at home and not there (blocking). Returns the bytes sent.
        Idempotent. Raises Refused where the run has no bucket, NotFound where nothing is at home."""
        from cloudrun import bucket_outputs

        found, emit, bucket = self.store.find_run(run), on_event or ignore, self._bucket_of(run)
        if bucket is None:
            raise Refused(
                f"{found.id} has no bucket", hint="submit --outputs s3://bucket/prefix gives it one"
            )
        files = RunFiles(self.settings, found.id)
        if not files.outputs.is_dir():
            raise NotFound(f"no outputs of {found.id} are at home", hint=f"cloudrun outputs pull {found.id}")
        return bucket_outputs.push(
            bucket,
            found.id,
            files.outputs,
            cache=files.hashes,
            progress=lambda done, total: emit(Progress("store", done, total)),
        )

    def _check_place(self, address: str) -> str:
        """The address as it will be kept. Asks once, so that a bucket that is not there, or not ours, is
        known before money is spent."""
        if not address:
            return ""
        from cloudrun.bucket import open_bucket

        bucket = open_bucket(address, self.settings)
        next(iter(bucket.list(".cloudrun/")), None)
        return bucket.url

    def _bucket_of(self, run: str) -> Bucket | None:
        from cloudrun.bucket import open_bucket

        place = self.outputs_place(run)
        return open_bucket(place, self.settings) if place else None


def _below(path: str, files: Sequence[BundleFile]) -> list[BundleFile]:
    """The file of that path, or those below that folder; all without a path."""
    wanted = path.strip("/")
    return [each for each in files if not wanted or f"{each.path}/".startswith(f"{wanted}/")]
