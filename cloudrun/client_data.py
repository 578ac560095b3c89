"""The verbs of datasets: add, look, get, delete, and what `--data` means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cloudrun.client_machines import MachineVerbs
from cloudrun.errors import NotFound, Refused
from cloudrun.events import OnEvent, Progress, ignore
from cloudrun.models import Bundle, BundleFile, DataInput

if TYPE_CHECKING:
    from cloudrun.datasets import Dataset


class DataVerbs(MachineVerbs):
    """The part of Client that keeps data for runs. What cannot be meant raises UsageError."""

    def data_inputs(self, words: Sequence[str]) -> tuple[DataInput, ...]:
        """What each NAME[:VERSION][:MOUNT] or RUN:PATH means. Keeps nothing."""
        if not words:
            return ()
        from cloudrun.datasets_inputs import read_inputs

        return read_inputs(self.settings, words, self.store.find_run)

    def init_data(self, name: str, folder: Path) -> Path:
        """Tie a folder to a dataset, so that `data upload` knows its name; the small file that says so."""
        from cloudrun import datasets

        path = folder / datasets.TIE_FILE
        try:
            path.write_text(datasets.check_name(name) + "\n", encoding="utf-8")
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}", hint="name a folder that you may write to") from error
        return path

    def upload_data(
        self, folder: Path, *, name: str = "", to: str = "", on_event: OnEvent | None = None
    ) -> tuple[Dataset, Bundle]:
        """A new version with what the folder holds, and what was left out of it (blocking). With `to` it is
        on that machine or in that bucket, too. Interrupted, call it again: it goes on."""
        from cloudrun import datasets

        emit = on_event or ignore
        if to:
            self._check_target(to)
        made, tree = datasets.add_folder(
            self.settings,
            name or _tied_name(folder),
            folder,
            on_event=emit,
        )
        if to:
            self.push_data(made.label, to, on_event=on_event)
        return made, tree

    def push_data(self, dataset: str, to: str, *, on_event: OnEvent | None = None) -> int:
        """Bring a dataset's missing content to a machine, or to s3://bucket/prefix or az://container/prefix
        (blocking); the bytes that travelled. Rented machines fetch it from that bucket from then on."""
        from cloudrun import datasets, datasets_remote

        emit, found = on_event or ignore, datasets.find_dataset(self.settings, dataset)
        tree = datasets.tree_of(self.settings, found)

        def progress(done: int, total: int) -> None:
            emit(Progress("push", done, total))

        if "://" in to:
            return self._store_data(tree, to, progress)
        return datasets_remote.push(self.settings, self.shell(to), found.digest, progress=progress).bytes_sent

    def _check_target(self, to: str) -> None:
        """Raise what can be known before a folder is read: no such machine, no account, no address."""
        from cloudrun.bucket import open_bucket

        if "://" in to:
            open_bucket(to, self.settings)
        else:
            self.machine(to)

    def _store_data(self, tree: Bundle, address: str, progress: Callable[[int, int], None]) -> int:
        from cloudrun import datasets_bucket, keptdata
        from cloudrun.bucket import open_bucket

        bucket = open_bucket(address, self.settings)
        objects = keptdata.objects_dir(self.settings)
        sent = datasets_bucket.store(bucket, tree, objects, progress=progress)
        keptdata.add_place(self.settings, tree.digest, bucket.url)
        return sent

    def data_places(self) -> dict[str, list[str]]:
        """The buckets that hold data, by digest, as far as this computer put it there."""
        from cloudrun import keptdata

        return keptdata.places_of(self.settings)

    def add_outputs(self, name: str, run: str, path: str = "", *, on_event: OnEvent | None = None) -> Dataset:
        """A new version with a run's outputs at home, or with a folder of them (blocking)."""
        from cloudrun import datasets
        from cloudrun.datasets_inputs import outputs_of

        emit, found = on_event or ignore, self.store.find_run(run)
        return datasets.add_folder(
            self.settings,
            name,
            outputs_of(self.settings, found, path),
            source=f"{found.id}:{path.strip('/')}",
            on_event=emit,
        )[0]

    def add_url(self, name: str, url: str, *, sha256: str, extract: bool = False) -> Dataset:
        """A version that machines fetch themselves when a run is given it. Fetches nothing now."""
        from cloudrun import datasets

        return datasets.add_url(self.settings, name, url, sha256=sha256, extract=extract)

    def datasets(self, name: str = "") -> list[tuple[Dataset, list[str]]]:
        """All versions, or those of one name, the oldest first, each with the ids of its runs."""
        from cloudrun import datasets

        if name:
            datasets.find_dataset(self.settings, name)
        users = datasets.used_by(self.settings)
        return [(each, users.get(each.digest, [])) for each in datasets.list_datasets(self.settings, name)]

    def dataset_files(self, name: str) -> list[BundleFile]:
        """The files of NAME, NAME:v1 or NAME:DIGEST."""
        from cloudrun import datasets

        return list(datasets.tree_of(self.settings, datasets.find_dataset(self.settings, name)).files)

    def get_data(self, name: str, paths: Sequence[str], to: Path) -> Bundle:
        """Write a dataset, or files and folders of it, into a new or empty folder, verified (blocking)."""
        from cloudrun import datasets

        return datasets.get(self.settings, datasets.find_dataset(self.settings, name), paths, to)

    def find_data(self, name: str) -> list[Dataset]:
        """What `delete_data` takes: all versions of NAME, or the one of NAME:v1."""
        from cloudrun import datasets

        found = datasets.find_dataset(self.settings, name)
        return [found] if ":" in name else datasets.list_datasets(self.settings, name)

    def delete_data(self, chosen: Sequence[Dataset]) -> int:
        """Delete versions at home and in buckets; the bytes freed at home.

        Raises Refused while a run that has not ended uses one, and what a bucket says that cannot be asked:
        nothing is deleted at home then.
        """
        from cloudrun import datasets

        active = {run.id for run in self.store.list_runs(active=True)}
        datasets.refuse_used(self.settings, chosen, active=active)
        gone = {each.label for each in chosen}
        kept = {each.digest for each in datasets.list_datasets(self.settings) if each.label not in gone}
        self._delete_stored({each.digest for each in chosen} - kept)
        return datasets.delete(self.settings, chosen, active=active)

    def discard_data(
        self, machine: str, chosen: Sequence[Dataset] = (), *, dry_run: bool = False
    ) -> tuple[int, list[str]]:
        """Take these versions off a machine, or all data that runs there were given (blocking): the bytes
        freed, and digests that stay since a run there has not ended. At home and in buckets all stays."""
        from cloudrun.remote import datalink

        digests = [each.digest for each in chosen]
        return datalink.discard(self.shell(machine), digests, remove=not dry_run)

    def _delete_stored(self, digests: set[str]) -> None:
        from cloudrun import datasets_bucket, keptdata
        from cloudrun.bucket import open_bucket

        for digest, addresses in keptdata.places_of(self.settings).items():
            for address in addresses if digest in digests else ():
                with suppress(NotFound):  # the bucket went, and the data with it
                    datasets_bucket.delete(open_bucket(address, self.settings), digest)
                keptdata.drop_place(self.settings, digest, address)


def _tied_name(folder: Path) -> str:
    from cloudrun.datasets import TIE_FILE

    try:
        return (folder / TIE_FILE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        hint = "add --name NAME, or tie the folder to a name once: cloudrun data init NAME"
        raise Refused(f"{folder} belongs to no dataset yet", hint=hint) from error
