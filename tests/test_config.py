"""Settings: environment over file over default, and a bad value names itself."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudrun.config import Settings, load_settings
from cloudrun.errors import ConfigError

EVERY_FILE_VALUE = """
ssh_port = 2222
poll_s = 3
currency = "jpy"
data_dir = "/from/file"
shell = "paramiko"
[rates]
JPY = 150
EUR = 0.92
"""
EVERY_ENVIRON_VALUE = {
    "CLOUDRUN_SSH_PORT": "2022",
    "CLOUDRUN_POLL_S": "0.5",
    "CLOUDRUN_CURRENCY": "EUR",
    "CLOUDRUN_DATA_DIR": "/from/environ",
    "CLOUDRUN_SHELL": "openssh",
    "CLOUDRUN_RATE_USD_JPY": "160.5",
}


def load(home: Path, file: str = "", **environ: str) -> Settings:
    if file:
        (home / "config.toml").write_text(file, encoding="utf-8")
    return load_settings({"CLOUDRUN_HOME": str(home), **environ})


def test_defaults(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found == Settings(home=tmp_path)
    assert (found.ssh_port, found.poll_s, found.currency, found.shell) == (22, 15.0, "USD", "")
    assert found.rates == {"USD": Decimal(1), "JPY": Decimal(110)}


def test_the_file_is_over_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, EVERY_FILE_VALUE) == Settings(
        home=tmp_path,
        ssh_port=2222,
        poll_s=3.0,
        currency="JPY",
        rates={"USD": Decimal(1), "JPY": Decimal(150), "EUR": Decimal("0.92")},
        data_dir=Path("/from/file"),
        shell="paramiko",
    )


def test_the_environment_is_over_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, EVERY_FILE_VALUE, **EVERY_ENVIRON_VALUE) == Settings(
        home=tmp_path,
        ssh_port=2022,
        poll_s=0.5,
        currency="EUR",
        rates={"USD": Decimal(1), "JPY": Decimal("160.5"), "EUR": Decimal("0.92")},
        data_dir=Path("/from/environ"),
        shell="openssh",
    )


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert load(tmp_path, EVERY_FILE_VALUE, **dict.fromkeys(EVERY_ENVIRON_VALUE, "")) == load(tmp_path)


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDRUN_HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDRUN_SSH_PORT", "2022")
    assert load_settings().ssh_port == 2022


def test_home_is_absolute_and_the_users_own_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"CLOUDRUN_HOME": "here"}).home == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert load_settings({"CLOUDRUN_HOME": "~/x"}).home == tmp_path / "x"
    default = load_settings({}).home
    assert default.name == "cloudrun"
    assert default.is_relative_to(tmp_path)


def test_settings_pass_to_a_process_of_ours(tmp_path: Path) -> None:
    found = load(tmp_path, EVERY_FILE_VALUE)
    (tmp_path / "config.toml").unlink()
    again = load_settings(found.as_environ())
    for name in ("home", "ssh_port", "poll_s", "shell", "data_dir"):
        assert getattr(again, name) == getattr(found, name)


def test_places_below_home(tmp_path: Path) -> None:
    found = load(tmp_path)
    places = (found.store_path, found.runs_dir, found.objects_dir, found.keys_dir, found.machines_dir)
    assert [place.relative_to(tmp_path).as_posix() for place in places] == [
        "cloudrun.sqlite",
        "runs",
        "objects",
        "keys",
        "machines",
    ]
    assert found.datasets_dir == tmp_path / "data"
    assert load(tmp_path, CLOUDRUN_DATA_DIR="/elsewhere").datasets_dir == Path("/elsewhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOUDRUN_SSH_PORT", "0"),
        ("CLOUDRUN_SSH_PORT", "65536"),
        ("CLOUDRUN_SSH_PORT", "22.5"),
        ("CLOUDRUN_SSH_PORT", "ssh"),
        ("CLOUDRUN_POLL_S", "0"),
        ("CLOUDRUN_POLL_S", "nan"),
        ("CLOUDRUN_POLL_S", "inf"),
        ("CLOUDRUN_SHELL", "telnet"),
        ("CLOUDRUN_RATE_USD_JPY", "many"),
        ("CLOUDRUN_RATE_USD_JPY", "0"),
        ("CLOUDRUN_RATE_USD_JPY", "-1"),
        ("CLOUDRUN_RATE_USD_JPY", "Infinity"),
        ("CLOUDRUN_RATE_USD_JPY", "1e99"),
        ("CLOUDRUN_DATA_DIR", "~nobody-of-that-name/x"),
    ],
)
def test_a_bad_variable_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as refusal:
        load(tmp_path, **{name: value})
    assert value in refusal.value.message
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("ssh_port = 'many'", "ssh_port"),
        ("ssh_port = true", "ssh_port"),
        ("poll_s = [1]", "poll_s"),
        ("currency = 7", "currency"),
        ("shell = 'telnet'", "shell"),
        ("data_dir = false", "data_dir"),
        ("rates = 3", "rates"),
        ("[rates]\nJPY = 'x'", "JPY"),
        ("[rates]\nJPY = true", "JPY"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, line: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key) as refusal:
        load(tmp_path, line)
    assert "config.toml" in refusal.value.message
    assert refusal.value.hint


def test_an_unknown_key_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="curency") as refusal:
        load(tmp_path, "curency = 'JPY'")
    assert "currency" in refusal.value.hint


@pytest.mark.parametrize("content", [b"ssh_port = ", b"\xff\xfe", b"[rates", b"a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.toml") as refusal:
        load(tmp_path)
    assert refusal.value.hint


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(st.text(st.characters(exclude_characters="\0")), st.floats().map(str), st.integers().map(str))
)
def test_a_number_is_within_its_bounds_or_refused(tmp_path: Path, text: str) -> None:
    """No text becomes a wait of NaN seconds or a port that is none."""
    for name, least, most in (("ssh_port", 1, 65535), ("poll_s", 0.01, 600)):
        variable = "CLOUDRUN_" + name.upper()
        try:
            value = getattr(load(tmp_path, **{variable: text}), name)
        except ConfigError as error:
            named = error.message
        else:
            assert least <= value <= most
            assert value == (float(text) if text else getattr(Settings(home=tmp_path), name))
            continue
        assert variable in named


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(exclude_characters="\0")))
def test_a_rate_is_positive_or_refused(tmp_path: Path, text: str) -> None:
    try:
        rate = load(tmp_path, CLOUDRUN_RATE_USD_EUR=text).rates.get("EUR", Decimal(1))
    except ConfigError as error:
        named = error.message
    else:
        assert rate.is_finite()
        assert rate > 0
        return
    assert "EUR" in named
