"""The trash: nothing is lost and nothing is there twice, whenever a process is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest
from clean_home import NOW, Home, bundle_of, many

from cloudrun.cleaning import Choice
from cloudrun.client import Client
from cloudrun.codestore import CodeStore
from cloudrun.errors import NotFound, Refused
from cloudrun.manifest import save_manifest
from cloudrun.runfiles import RunFiles
from cloudrun.store_clean import RunIndex
from cloudrun.trash import Batch, Trash, remove_tree

KILLED_AT = Path(__file__).with_name("killed_at.py")
RUNS = 12


def killed(home: Home, step: str, number: int) -> bool:
    """Walk that step and die before its change of that number; False when it had fewer."""
    command = [sys.executable, KILLED_AT, home.settings.home, step, str(number)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


def everywhere(home: Home) -> Counter[str]:
    """How often each file is at home or in the trash."""
    places = ["", *(f"trash/{batch.name}" for batch in Trash(home.settings.home).batches())]
    found: Counter[str] = Counter()
    for place in places:
        found.update(path.removeprefix(f"{place}/") for path in home.content(place))
    return found


def clean(home: Home) -> None:
    client = Client(home.settings)
    client.clean(client.plan_cleanup(Choice()))


@pytest.mark.parametrize("number", [0, 1, 2, 4, 7, 11])
def test_killed_cleaning_then_killed_undoing_loses_nothing(home: Home, number: int) -> None:
    many(home, RUNS)
    before = home.content()
    assert killed(home, "clean", number)
    assert everywhere(home) == Counter(before.keys())
    clean(home)
    assert everywhere(home) == Counter(before.keys())
    left = home.content()
    assert len(left) < len(before)
    assert killed(home, "undo", number // 2)
    assert everywhere(home) == Counter(before.keys())
    for _ in Trash(home.settings.home).batches():
        Client(home.settings).undo_clean()
    assert home.content() == before


@pytest.mark.parametrize("number", [1, 2, 9])
def test_killed_emptying_is_finished_by_the_next(home: Home, number: int) -> None:
    many(home, RUNS)
    clean(home)
    left = home.content()
    assert killed(home, "empty", number)
    assert home.content() == left
    assert Client(home.settings).trash_size()[1] > 0
    with pytest.raises(NotFound):
        Client(home.settings).undo_clean()  # no run comes back in part
    Client(home.settings).empty_trash()
    assert Client(home.settings).trash_size() == (0, 0)
    assert home.content() == left


def test_undo_takes_the_newest_first(home: Home) -> None:
    home.add("aaaa", job="bn")
    home.add("bbbb")
    client = Client(home.settings)
    client.clean(client.plan_cleanup(Choice(job="bn")))
    client.clean(client.plan_cleanup(Choice()))
    assert home.runs() == set()
    client.undo_clean()
    assert home.runs() == {"bbbb"}
    client.undo_clean()
    assert home.runs() == {"aaaa", "bbbb"}
    assert home.code() == {"shared"}


def test_undo_leaves_what_is_there_now(home: Home) -> None:
    home.add("aaaa")
    clean(home)
    files = RunFiles(home.settings, "aaaa")
    with files.walking():
        files.record.write_text("newer")
        files.outputs.mkdir()
    home.keep(["shared"])
    _, left = Client(home.settings).undo_clean()
    assert left == ["runs/aaaa/run.json"]
    assert files.record.read_text() == "newer"
    assert (files.checkpoint / "model.pt").read_bytes() == b"aaaa"
    assert Client(home.settings).trash_size()[1] == 1


def test_code_that_a_new_run_needs_goes_back(home: Home) -> None:
    """A submit found the content and wrote its manifest after the clean-up had looked."""
    home.add("aaaa", code=("one", "two"))
    client = Client(home.settings)
    cleanup = client.plan_cleanup(Choice())
    home.add("bbbb", code=("two",), ended_at=None)
    (RunFiles(home.settings, "bbbb").folder).rename(home.settings.runs_dir / "cccc")
    client.clean(cleanup)
    assert home.code() == {"two"}


def test_code_that_a_submit_counts_on_goes_back(home: Home) -> None:
    """It found the content, holds its run's lock, and writes its manifest only after the content went."""
    home.add("aaaa", code=("one", "two"))
    planned = CodeStore(home.settings).unneeded([])
    assert planned == []  # the folder that no store knows needs them
    remove_tree(str(RunFiles(home.settings, "aaaa").folder))
    planned = CodeStore(home.settings).unneeded([])
    writer = Timer(0.2, lambda: save_manifest(bundle_of(("two",)), files.bundle))
    files = RunFiles(home.settings, "bbbb")

    class Slow(Batch):
        def take(self, path: str) -> bool:
            if not writer.is_alive():
                walking.enter_context(files.walking())
                writer.start()
            return super().take(path)

    with ExitStack() as walking, RunIndex(home.settings.store_path) as index:
        batch = Slow(home.settings.home, home.settings.home / "trash" / "0001-x")
        assert CodeStore(home.settings).sweep(planned, index, batch)[0] == 1
        writer.join()
    assert home.code() == {"two"}


def test_a_second_cleaner_is_refused(home: Home) -> None:
    home.add("aaaa")
    client = Client(home.settings)
    with Trash(home.settings.home).working(), pytest.raises(Refused):
        client.clean(client.plan_cleanup(Choice()))
    assert home.runs() == {"aaaa"}


def test_a_cleaned_run_is_not_restarted(home: Home) -> None:
    home.add("aaaa")
    clean(home)
    with pytest.raises(Refused) as refusal:
        Client(home.settings).restart("aaaa")
    assert "--undo" in refusal.value.hint
    assert home.runs() == set()


def test_clocks_that_go_back_do_not_change_the_order(home: Home) -> None:
    trash = Trash(home.settings.home)
    for number in range(1, 12):
        trash.begin(NOW.replace(year=2030 - number)).folder.mkdir(parents=True)
        assert trash.batches()[-1].name.startswith(f"{number:04d}-")


def test_links_are_deleted_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("precious")
    tree = tmp_path / "tree"
    (tree / "sealed").mkdir(parents=True)
    (tree / "link").symlink_to(tmp_path / "kept")
    (tree / "sealed" / "file").touch()
    (tree / "sealed").chmod(0o500)
    remove_tree(str(tree))
    assert not tree.exists()
    assert (tmp_path / "kept" / "file").read_text() == "precious"
