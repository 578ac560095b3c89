"""A machine at Azure ends its own bill: by its identity, and where it may not, at least its work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from littleazure import COMPUTE, EVENTS, ID, TOKEN, Answer, LittleAzure
from localmachine import LocalShell, follow_to_end, start_script, wait_for
from resuming import KEY, go, power_off, start_job, state_of
from unpacking import run_script, unpack

from cloudrun import payload
from cloudrun.sim import programs

COMPANION = Path(__file__).parents[2] / "cloudrun" / "agent" / "azure.py"
ORDER = f"{ID}/deallocate"


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[LittleAzure]:
    service = LittleAzure(tmp_path)
    yield service
    service.close()


@pytest.fixture
def env(azure: LittleAzure, tmp_path: Path) -> dict[str, str]:
    """A machine's environment: its `shutdown` says "off", and a proxy that it names is not asked."""
    programs.install_embedded(tmp_path / "bin", power(tmp_path))
    proxy = "http://127.0.0.1:9"
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CLOUDRUN_AZURE_RELEASE_S": "6",
        "http_proxy": proxy,
        "https_proxy": proxy,
        **azure.environment,
    }


def power(folder: Path) -> Path:
    return folder / "power"


def is_off(folder: Path) -> bool:
    return power(folder).exists()


def release(env: dict[str, str], patience_s: float | None = None) -> subprocess.CompletedProcess[str]:
    more = {} if patience_s is None else {"CLOUDRUN_AZURE_RELEASE_S": str(patience_s)}
    argv = [sys.executable, str(COMPANION), "release"]
    done = subprocess.run(argv, env=env | more, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done


def test_it_deallocates_itself_and_sees_it_happen(
    azure: LittleAzure, env: dict[str, str], tmp_path: Path
) -> None:
    done = release(env)
    assert (done.returncode, azure.power, azure.orders()) == (0, "deallocated", 1)
    assert done.stderr.splitlines() == [
        "release: Azure deallocates this machine",
        "release: deallocated",
    ]
    assert not is_off(tmp_path)


PASSING: dict[str, tuple[str, list[Answer]]] = {
    "too many requests": (ORDER, [(429, b"", {})] * 2),
    "trouble of Azure's": (ORDER, [(500, b"", {}), (503, b"<html>", {})]),
    "a token that has run out": (ORDER, [(401, b"", {})]),
    "another operation": (ORDER, [(409, b'{"error": {"code": "Conflict"}}', {})]),
    "a network that fails": (ORDER, [(0, b"", {})] * 2),
    "somebody else's answer": (ORDER, [(0, b"SSH-2.0-OpenSSH_9.6\r\n", {})]),
    "metadata that fail": (COMPUTE, [(0, b"", {}), (500, b"", {})]),
    "metadata in an update": (COMPUTE, [(410, b"", {}), (404, b"", {})]),
    "metadata that are none": (COMPUTE, [(200, b"[]", {}), (200, b"{}", {}), (200, b"\xff", {})]),
    "a token that is none": (TOKEN, [(200, b"{}", {}), (429, b"", {}), (404, b"", {})]),
}


@pytest.mark.parametrize("obstacle", PASSING)
def test_what_passes_is_waited_out(
    azure: LittleAzure, env: dict[str, str], tmp_path: Path, obstacle: str
) -> None:
    path, answers = PASSING[obstacle]
    azure.faults[path] = list(answers)
    done = release(env)
    assert (done.returncode, azure.power) == (0, "deallocated")
    assert len(done.stderr.splitlines()) == 2 + len(answers)
    assert not is_off(tmp_path)


def test_it_comes_again_when_azure_says_and_not_before(azure: LittleAzure, env: dict[str, str]) -> None:
    azure.faults[ORDER] = [(429, b"", {"Retry-After": "2"})]
    assert release(env).returncode == 0
    orders = [at for (_, path), at in zip(azure.calls, azure.asked_at, strict=True) if path == ORDER]
    assert orders[1] - orders[0] >= 2


def test_the_pauses_between_the_tries_grow(azure: LittleAzure, env: dict[str, str], tmp_path: Path) -> None:
    azure.always[ORDER] = (503, b"", {})
    assert release(env, 3).returncode == 0
    assert 4 <= azure.orders() <= 12
    assert is_off(tmp_path)


def test_each_try_has_a_token_of_its_own(azure: LittleAzure, env: dict[str, str]) -> None:
    azure.faults[ORDER] = [(401, b"", {})]
    assert release(env).returncode == 0
    assert azure.count(TOKEN) >= azure.orders() == 2


@pytest.mark.parametrize("why", ["no right", "no identity", "no such machine", "a redirect"])
def test_what_does_not_pass_ends_the_work_at_once(
    azure: LittleAzure, env: dict[str, str], tmp_path: Path, why: str
) -> None:
    azure.permitted = why != "no right"
    azure.identity = why != "no identity"
    if why == "no such machine":
        azure.always[COMPUTE] = (200, json.dumps({"resourceId": f"{ID}x"}).encode(), {})
    if why == "a redirect":
        azure.always[ORDER] = (307, b"", {"Location": f"{azure.management}{ORDER}"})
    done = release(env)
    said = {
        "no right": "AuthorizationFailed",
        "no identity": "Identity not found",
        "a redirect": "status 307",
    }
    assert said.get(why, "ResourceNotFound") in done.stderr
    assert (done.returncode, azure.power) == (0, "running")
    assert azure.orders() == (1 if why in ("no right", "a redirect") else 0)
    assert power(tmp_path).read_text() == "off\n"
    assert "as the last resort" in done.stderr


def test_an_azure_that_never_answers_ends_the_work_in_time(
    azure: LittleAzure, env: dict[str, str], tmp_path: Path
) -> None:
    azure.always[ORDER] = (0, b"", {})
    began = time.monotonic()
    assert release(env, 1).returncode == 0
    assert 1 <= time.monotonic() - began < 60
    assert is_off(tmp_path)


def test_an_order_that_fails_later_is_given_again(
    azure: LittleAzure, env: dict[str, str], tmp_path: Path
) -> None:
    azure.ends_as = "running"
    done = release(env)
    assert (done.returncode, azure.power, azure.orders()) == (0, "deallocated", 2)
    assert not is_off(tmp_path)


def test_an_order_without_effect_ends_the_work(
    azure: LittleAzure, env: dict[str, str], tmp_path: Path
) -> None:
    """Azure said yes and nothing happens, for five times the patience."""
    azure.ends_as = ""
    began = time.monotonic()
    assert release(env, 0.5).returncode == 0
    assert 2.5 <= time.monotonic() - began < 60
    assert is_off(tmp_path)


def test_without_the_right_to_look_it_waits_all_the_same(
    azure: LittleAzure, env: dict[str, str], tmp_path: Path
) -> None:
    """Azure takes the machine away under it: that needs nobody to see it."""
    azure.always[ID] = (403, b"", {})
    argv = [sys.executable, str(COMPANION), "release"]
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE) as waiting:
        wait_for(lambda: azure.count(ID) > 1)
        assert waiting.poll() is None
        waiting.kill()
    assert azure.orders() == 1
    assert not is_off(tmp_path)


def test_a_machine_that_cannot_even_be_switched_off_says_so(
    azure: LittleAzure, env: dict[str, str], tmp_path: Path
) -> None:
    """Then the guard comes again."""
    azure.permitted = False
    (tmp_path / "bin" / "shutdown").write_text("#!/bin/sh\nexit 1\n")
    assert release(env).returncode == 1
    done = release(env | {"PATH": str(tmp_path / "nothing")})
    assert done.returncode == 1
    assert "No such file" in done.stderr


def test_the_token_goes_to_nobody_but_azure(azure: LittleAzure, env: dict[str, str], tmp_path: Path) -> None:
    """Not to one whose certificate nobody vouches for."""
    del env["SSL_CERT_FILE"]
    done = release(env, 0.5)
    assert "certificate" in done.stderr.lower()
    assert (azure.orders(), azure.power) == (0, "running")
    assert is_off(tmp_path)


def test_a_wrong_call_is_told_the_right_one(env: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, str(COMPANION)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: azure.py release\n")


# --- by the guard, as a machine has it -----------------------------------------------------


@pytest.fixture
def rented(machine: LocalShell, azure: LittleAzure, env: dict[str, str]) -> Iterator[LocalShell]:
    machine.env |= {name: value for name, value in env.items() if name != "HOME"}
    yield machine
    power_off(machine)


def booted(machine: LocalShell, root: Path, **limits: object) -> None:
    """From its payload, whose paths are those of the machine's own disk."""
    companion = str(root) + payload.companion_path("azure")
    argv = ["sudo", "python3", companion, "release"]
    run_script(unpack(root, companion="azure", notices=companion, release=argv, **limits), machine.env)


def test_at_the_deadline_the_guard_has_the_machine_deallocated(
    rented: LocalShell, azure: LittleAzure, tmp_path: Path
) -> None:
    start_script(rented, 'trap "exit 75" TERM; echo up; while :; do sleep 0.02; done')
    booted(rented, tmp_path / "disk", deadline_at=time.time() + 0.5)
    assert follow_to_end(rented)[1].reason == "deadline"
    wait_for(lambda: azure.power == "deallocated")
    assert not is_off(tmp_path)
    wait_for(lambda: "release: deallocated" in (rented.base / "guard.log").read_text())


def test_without_the_right_the_guard_switches_the_machine_off(
    rented: LocalShell, azure: LittleAzure, tmp_path: Path
) -> None:
    azure.permitted = False
    booted(rented, tmp_path / "disk", deadline_at=time.time() + 0.2)
    wait_for(lambda: is_off(tmp_path))
    assert azure.orders() == 1


def test_the_payload_s_companion_hears_of_a_preemption(
    rented: LocalShell, azure: LittleAzure, tmp_path: Path
) -> None:
    booted(rented, tmp_path / "disk")
    start_job(rented)
    event = azure.schedule("Preempt")
    wait_for(lambda: state_of(rented, KEY)["state"] == "queued")
    wait_for(lambda: azure.approvals == [[event["EventId"]]])
    azure.events.clear()
    go(rented)
    assert follow_to_end(rented)[1].exit_code == 0
    assert azure.count(EVENTS) > 1
