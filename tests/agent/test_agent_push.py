"""Content on its way to the machine: only what is missing, and what was cut goes on."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from localmachine import LocalShell, follow_to_end, make_bundle, start_script

from cloudrun.errors import ConnectionLost, TransferFailed
from cloudrun.manifest import digest_files
from cloudrun.models import Bundle, BundleFile
from cloudrun.remote import process, transfer

KEY = "aaaa2222.1"


def code_of(machine: LocalShell, bundle: Bundle, key: str = KEY) -> Path:
    """The bundle as it is laid out for a run."""
    process.start(machine, process.ProcessSpec(key=key, bundle=bundle.digest, command=("true",)))
    assert follow_to_end(machine, key)[1].exit_code == 0
    return machine.run_dir(key) / "code"


def test_a_bundle_arrives_whole_and_only_once(machine: LocalShell) -> None:
    bundle, open_content = make_bundle({"a": b"1" * 5000, "b/c d\n": b"", "b/\udcff": b"2", "twin": b"2"})
    first = transfer.push_bundle(machine, bundle, open_content)
    assert (first.files_sent, first.bytes_sent) == (3, 5001)
    sent = machine.sent
    assert transfer.push_bundle(machine, bundle, open_content) == transfer.PushResult(0, 0)
    assert machine.sent == sent
    code = code_of(machine, bundle)
    for file in bundle.files:
        with open_content(file.sha256) as content:
            assert (code / file.path).read_bytes() == content.read()


def test_only_new_content_of_a_changed_bundle_travels(machine: LocalShell) -> None:
    files = {f"f{number}": os.urandom(3000) for number in range(50)}
    transfer.push_bundle(machine, *make_bundle(files))
    files["f7"] = b"changed"
    result = transfer.push_bundle(machine, *make_bundle(files))
    assert (result.files_sent, result.bytes_sent) == (1, 7)


@pytest.mark.parametrize("sizes", [[4_000_000], [20_000] * 200, [10, 3_000_000, 1_000_000]])
def test_a_push_cut_at_thirty_percent_goes_on_where_it_stopped(machine: LocalShell, sizes: list[int]) -> None:
    bundle, open_content = make_bundle({f"f{index}": os.urandom(size) for index, size in enumerate(sizes)})
    total = sum(sizes)
    process.list_runs(machine)  # the agent is there: what follows is the bundle alone
    machine.sent = 0
    machine.cut_after["sent"] = total * 3 // 10
    with pytest.raises(ConnectionLost):
        transfer.push_bundle(machine, bundle, open_content)
    content_sent = stored_bytes(machine)
    assert content_sent > total // 5
    result = transfer.push_bundle(machine, bundle, open_content)
    assert result.bytes_sent == total - content_sent
    assert stored_bytes(machine) == total
    assert not list((machine.base / "objects").rglob("*.part"))


def stored_bytes(machine: LocalShell) -> int:
    return sum(path.stat().st_size for path in (machine.base / "objects").rglob("*") if path.is_file())


def test_a_disk_that_fills_up_is_said_and_what_arrived_stays(machine: LocalShell, tmp_path: Path) -> None:
    """A small tmpfs where we may mount one; else a limit on file sizes, which fails by another number."""
    bundle, open_content = make_bundle({"small": b"x" * 1000, "tail": os.urandom(6_000_000)})
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(machine.home)], capture_output=True
        ).returncode
        == 0
    )
    try:
        if not mounted:
            machine.env["LIMIT"] = "1"
            limit = "ulimit -f 4000; "
            machine.open = lambda command: LocalShell.open(machine, limit + command)  # type: ignore[method-assign]
        with pytest.raises(TransferFailed) as caught:
            transfer.push_bundle(machine, bundle, open_content)
        assert "No space left" in caught.value.message or "too large" in caught.value.message
        assert "free space" in caught.value.hint
        there = stored_bytes(machine)
        assert there > 1_000_000
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=20m", str(machine.home)], check=True)
        else:
            del machine.open
        assert transfer.push_bundle(machine, bundle, open_content).bytes_sent == 6_001_000 - there
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(machine.home)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_full_disk_does_not_lose_how_a_run_ended(machine: LocalShell) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(machine.home)], check=True)
    try:
        start_script(machine, "cat /dev/zero > $CLOUDRUN_OUTPUT_DIR/fill; exit 9")
        _, status = follow_to_end(machine)
        assert (status.exit_code, status.state) == (9, process.ProcessState.ENDED)
        assert process.status(machine, KEY).exit_code == 9
        assert [file.path for file in transfer.list_outputs(machine, KEY)] == ["fill"]
    finally:
        subprocess.run(["umount", "-l", str(machine.home)], check=True)


def test_wrong_content_is_refused(machine: LocalShell) -> None:
    bundle, _ = make_bundle({"a": b"right"})
    import io

    with pytest.raises(TransferFailed, match="arrived wrong"):
        transfer.push_bundle(machine, bundle, lambda _: io.BytesIO(b"wrong"))
    with pytest.raises(TransferFailed, match="shorter than its manifest"):
        transfer.push_bundle(machine, bundle, lambda _: io.BytesIO(b"wr"))
    assert transfer.push_bundle(machine, *make_bundle({"a": b"right"})).files_sent == 1


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", "a//b", ".", "a\0b"])
def test_the_agent_takes_no_path_out_of_the_folder(machine: LocalShell, path: str) -> None:
    files = (BundleFile(path, 0, 0o644, "ab" * 32),)
    with pytest.raises(Exception, match="unusable entry"):
        transfer.push_bundle(machine, Bundle("cd" * 32, files), lambda _: open(os.devnull, "rb"))  # noqa: PTH123, SIM115


def test_modes_and_inner_symlinks_arrive_and_outer_symlinks_do_not(machine: LocalShell) -> None:
    base, open_content = make_bundle({"run": b"#!/bin/sh\n", "plain": b"x"})
    modes = {"run": 0o755, "plain": 0o644}
    links = {"d/in": "../plain", "d/out": "../../spec.json", "d/abs": "/etc/passwd"}
    files = (
        *(BundleFile(file.path, file.size, modes[file.path], file.sha256) for file in base.files),
        *(BundleFile(path, 0, 0o777, "", link) for path, link in links.items()),
    )
    bundle = Bundle(digest_files(files), files)
    transfer.push_bundle(machine, bundle, open_content)
    code = code_of(machine, bundle)
    assert os.access(code / "run", os.X_OK)
    assert not os.access(code / "plain", os.X_OK)
    assert (code / "d" / "in").read_bytes() == b"x"
    assert sorted(path.name for path in (code / "d").iterdir()) == ["in"]


def test_what_a_job_does_to_its_code_reaches_no_other_run(machine: LocalShell) -> None:
    start_script(machine, "echo 'echo changed' > job.sh")
    follow_to_end(machine)
    start_script(machine, "echo 'echo changed' > job.sh", key="bbbb3333.1")
    assert follow_to_end(machine, "bbbb3333.1")[0] == b""


def test_a_folder_is_pushed_for_a_run_that_is_yet_to_start(machine: LocalShell, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.pt").write_bytes(os.urandom(2_000_000))
    (folder / "deep" / "state.json").write_text("{}")
    (folder / "link").symlink_to("/etc/passwd")
    there = transfer.push_folder(machine, KEY, folder, "resume")
    assert there == str(machine.run_dir(KEY) / "resume")
    start_script(machine, 'cd "$CLOUDRUN_RESUME_FROM" && find . -type f -o -type l | sort', resume_from=there)
    assert follow_to_end(machine)[0] == b"./deep/state.json\n./model.pt\n"
    sent = machine.sent
    transfer.push_folder(machine, "bbbb3333.1", folder, "resume")
    assert machine.sent - sent < 1000
    assert (machine.run_dir("bbbb3333.1") / "resume" / "model.pt").stat().st_size == 2_000_000


def test_two_pushes_at_once_do_not_spoil_each_other(machine: LocalShell) -> None:
    import threading

    bundle, open_content = make_bundle({f"f{index}": os.urandom(300_000) for index in range(20)})
    process.list_runs(machine)
    failures = []

    def push() -> None:
        try:
            transfer.push_bundle(machine, bundle, open_content)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=push) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert code_of(machine, bundle).is_dir()


def test_no_file_descriptor_is_left_behind(machine: LocalShell) -> None:
    bundle, open_content = make_bundle({"a": b"1"})
    transfer.push_bundle(machine, bundle, open_content)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        transfer.push_bundle(machine, bundle, open_content)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0


names = st.lists(
    st.text(
        st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"])
        | st.sampled_from("\udc80\udcff"),
        min_size=1,
        max_size=20,
    ).filter(lambda part: part not in (".", "..")),
    min_size=1,
    max_size=3,
).map("/".join)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.dictionaries(names, st.binary(max_size=50), min_size=1, max_size=5))
def test_any_names_and_contents_make_the_round_trip(
    contents: dict[str, bytes], machine: LocalShell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    paths = {
        path: data
        for path, data in contents.items()
        if not any(other.startswith(path + "/") for other in contents)
    }
    bundle, open_content = make_bundle(paths)
    transfer.push_bundle(machine, bundle, open_content)
    key = f"k{os.urandom(6).hex()}.1"
    spec = process.ProcessSpec(
        key=key, bundle=bundle.digest, command=("cp", "-R", ".", "../outputs"), outputs="out"
    )
    process.start(machine, spec)
    assert follow_to_end(machine, key)[1].exit_code == 0
    run = machine.run_dir(key)
    (run / "outputs" / "out").rmdir()
    (run / "code" / "out").rmdir()
    (run / "outputs").rename(run / "code" / "out")
    home = tmp_path_factory.mktemp("home")
    result = transfer.pull_outputs(machine, key, home)
    assert result.files == len(paths)
    for path, data in paths.items():
        with open(os.path.join(os.fsencode(home), os.fsencode(path)), "rb") as file:  # noqa: PTH118, PTH123
            assert file.read() == data
