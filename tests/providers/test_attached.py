"""Attached hosts: made known with a confirmed key, forgotten without being touched."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from provider_cases import attach
from servers import OpenSshServer, launch

from cloudrun.config import Settings
from cloudrun.errors import ConnectFailed, HostKeyMismatch, NotOffered, ProviderError, Refused
from cloudrun.keys import fingerprint, make_key
from cloudrun.models import MachineState
from cloudrun.providers.attached import AttachedProvider, parse_target
from cloudrun.providers.base import Attachable
from cloudrun.providers.local import LocalProvider
from cloudrun.remote.connect import connect


def test_the_host_key_is_scanned_and_shown_as_ssh_keygen_does(
    attached: AttachedProvider, host: OpenSshServer
) -> None:
    assert isinstance(attached, Attachable)
    line = attached.scan_host_key(f"{host.address.host}:{host.address.port}")
    assert line == host.address.host_key
    shown = subprocess.run(
        ["ssh-keygen", "-lf", host.folder / "host_key.pub"], capture_output=True, text=True, check=True
    )
    assert fingerprint(line) == shown.stdout.split()[1]


def test_the_confirmed_key_is_the_one_that_counts(
    attached: AttachedProvider, host: OpenSshServer, settings: Settings, tmp_path: Path
) -> None:
    make_key(tmp_path / "other", comment="")
    address = host.address
    machine = attached.attach(
        "mine",
        f"{address.user}@{address.host}:{address.port}",
        host_key=(tmp_path / "other.pub").read_text(),
        key_path=str(address.key_path),
    )
    assert machine.address
    with pytest.raises(HostKeyMismatch):
        connect(machine.address, settings, machine="mine").run("true")


def test_terminate_forgets_and_touches_nothing(attached: AttachedProvider, host: OpenSshServer) -> None:
    machine = attach(attached, "mine", host)
    attached.terminate(machine)
    again = attach(attached, "mine", host)
    assert again.state is MachineState.RUNNING


def test_a_host_that_does_not_answer_is_stopped(
    attached: AttachedProvider, host: OpenSshServer, settings: Settings
) -> None:
    machine = attach(attached, "mine", host)
    record = settings.home / "attached" / "mine.json"
    record.write_text(record.read_text().replace(f'"port": {host.address.port}', '"port": 1'))
    assert attached.describe(machine).state is MachineState.STOPPED


def test_a_name_is_taken_once(attached: AttachedProvider, host: OpenSshServer) -> None:
    attach(attached, "mine", host)
    with pytest.raises(Refused, match="mine"):
        attach(attached, "mine", host)
    with pytest.raises(Refused):
        attach(attached, "../mine", host)


def test_it_launches_nothing(attached: AttachedProvider, local: LocalProvider) -> None:
    machine = launch(local, "box")
    assert machine
    with pytest.raises(NotOffered) as caught:
        launch_spec_of(local, attached)
    assert "attach" in caught.value.hint


def test_the_users_usual_key_is_the_default(
    attached: AttachedProvider,
    host: OpenSshServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    target = f"{host.address.host}:{host.address.port}"
    with pytest.raises(Refused, match="key"):
        attached.attach("mine", target, host_key=host.address.host_key)
    make_key(tmp_path / ".ssh" / "id_ed25519", comment="")
    machine = attached.attach("mine", target, host_key=host.address.host_key)
    assert machine.address
    assert machine.address.key_path == tmp_path / ".ssh" / "id_ed25519"
    with pytest.raises(Refused):
        attached.attach("two", target, host_key=host.address.host_key, key_path=str(tmp_path / "none"))
    with pytest.raises(Refused, match="host key"):
        attached.attach("two", target, host_key="nonsense")


def test_a_record_that_was_damaged(attached: AttachedProvider, settings: Settings) -> None:
    (settings.home / "attached").mkdir(parents=True)
    (settings.home / "attached" / "mine.json").write_text("{")
    with pytest.raises(ProviderError, match=r"mine\.json"):
        attached.list_machines()


def test_nobody_to_scan(attached: AttachedProvider, host: OpenSshServer) -> None:
    with pytest.raises(ConnectFailed):
        attached.scan_host_key(f"{host.address.host}:1")


def test_targets() -> None:
    assert parse_target("me@host:2222") == ("me", "host", 2222)
    assert parse_target("me@host") == ("me", "host", 22)
    assert parse_target("me@[::1]:22") == ("me", "::1", 22)
    assert parse_target("host")[1:] == ("host", 22)
    for wrong in ("", "me@", "@host", "a b", "host:0", "host:99999", "host:x", "-oProxyCommand=x", "me@-x"):
        with pytest.raises(Refused):
            parse_target(wrong)


@bounds(deadline=None)
@given(st.text())
def test_a_target_may_be_anything(text: str) -> None:
    with contextlib.suppress(Refused):
        user, name, port = parse_target(text)
        assert user
        assert name
        assert 0 < port < 65536


def launch_spec_of(local: LocalProvider, attached: AttachedProvider) -> object:
    return launch(_Borrowed(local, attached), "box")  # type: ignore[arg-type]


@dataclasses.dataclass
class _Borrowed:
    """Offers of one provider, launches of another."""

    local: LocalProvider
    attached: AttachedProvider

    def offers(self, need):  # type: ignore[no-untyped-def]
        return self.local.offers(need)

    def launch(self, spec):  # type: ignore[no-untyped-def]
        return self.attached.launch(spec)
