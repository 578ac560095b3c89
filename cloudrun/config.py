"""Settings: the only reader of our environment variables and configuration file.

Sources, strongest first: CLOUDRUN_* environment variables, config.toml in the
configuration folder, defaults. The provider SDKs read their own variables themselves.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

from cloudrun.errors import ConfigError

DEFAULT_RATES = {"USD": Decimal(1), "JPY": Decimal(110)}  # 110 JPY: the rate of the 2017 reports


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one process. `home` holds store, runs, keys and caches."""

    home: Path
    ssh_port: int = 22  # of launched machines
    poll_s: float = 15.0  # upper bound of every wait between polls
    currency: str = "USD"
    rates: Mapping[str, Decimal] = field(default_factory=lambda: dict(DEFAULT_RATES))
    data_dir: Path | None = None  # datasets of this computer; None = home/data
    shell: str = ""  # "openssh" | "paramiko" | "" = openssh where `ssh` is installed

    @property
    def store_path(self) -> Path:
        return self.home / "cloudrun.sqlite"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def objects_dir(self) -> Path:
        return self.home / "objects"

    @property
    def keys_dir(self) -> Path:
        return self.home / "keys"

    @property
    def machines_dir(self) -> Path:
        """Folders of `local` machines."""
        return self.home / "machines"

    @property
    def datasets_dir(self) -> Path:
        return self.data_dir or self.home / "data"

    def as_environ(self) -> dict[str, str]:
        """The same settings as environment variables, for a process of ours that outlives this one."""
        named = {
            "CLOUDRUN_HOME": str(self.home),
            "CLOUDRUN_SSH_PORT": str(self.ssh_port),
            "CLOUDRUN_POLL_S": str(self.poll_s),
            "CLOUDRUN_SHELL": self.shell,
            "CLOUDRUN_DATA_DIR": str(self.data_dir or ""),
        }
        return {name: value for name, value in named.items() if value}


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. Raises ConfigError with the variable or key named."""
    environ = os.environ if environ is None else environ
    home = _home(environ)
    stored = _read_file(home / "config.toml")
    return Settings(
        home=home,
        ssh_port=int(_number(environ, stored, "ssh_port", 22, least=1, most=65535)),
        poll_s=_number(environ, stored, "poll_s", 15.0, least=0.01, most=600),
        currency=_text(environ, stored, "currency", "USD").upper(),
        rates=_rates(environ, stored),
        data_dir=_path(environ, stored, "data_dir"),
        shell=_choice(environ, stored, "shell", ("", "openssh", "paramiko")),
    )


def _home(environ: Mapping[str, str]) -> Path:
    if environ.get("CLOUDRUN_HOME"):
        return Path(environ["CLOUDRUN_HOME"]).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("cloudrun", appauthor=False)


def _read_file(path: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: {error}", hint="mend or remove that file") from error


def _text(environ: Mapping[str, str], stored: Mapping[str, object], key: str, default: str) -> str:
    value = environ.get("CLOUDRUN_" + key.upper()) or stored.get(key, default)
    if not isinstance(value, str):
        raise ConfigError(f"config.toml: {key} must be text, not {value!r}")
    return value


def _choice(
    environ: Mapping[str, str], stored: Mapping[str, object], key: str, allowed: tuple[str, ...]
) -> str:
    value = _text(environ, stored, key, allowed[0])
    if value not in allowed:
        names = ", ".join(name for name in allowed if name)
        raise ConfigError(f"CLOUDRUN_{key.upper()} is {value!r}", hint=f"use one of: {names}")
    return value


def _number(
    environ: Mapping[str, str],
    stored: Mapping[str, object],
    key: str,
    default: float,
    *,
    least: float,
    most: float,
) -> float:
    raw = environ.get("CLOUDRUN_" + key.upper()) or stored.get(key, default)
    try:
        value = float(raw)  # type: ignore[arg-type]  # not a number: TypeError, handled below
    except (TypeError, ValueError):
        value = float("nan")
    if not least <= value <= most:
        raise ConfigError(
            f"CLOUDRUN_{key.upper()} is {raw!r}", hint=f"use a number from {least:g} to {most:g}"
        )
    return value


def _path(environ: Mapping[str, str], stored: Mapping[str, object], key: str) -> Path | None:
    value = _text(environ, stored, key, "")
    return Path(value).expanduser().absolute() if value else None


def _rates(environ: Mapping[str, str], stored: Mapping[str, object]) -> dict[str, Decimal]:
    """Units of each currency for one US dollar: CLOUDRUN_RATE_USD_JPY=150, or [rates] JPY = 150."""
    rates = dict(DEFAULT_RATES)
    table = stored.get("rates", {})
    if not isinstance(table, Mapping):
        raise ConfigError("config.toml: [rates] must be a table", hint="write: [rates] then JPY = 150")
    named = {str(code): str(value) for code, value in table.items()}
    prefix = "CLOUDRUN_RATE_USD_"
    named |= {name[len(prefix) :]: value for name, value in environ.items() if name.startswith(prefix)}
    for code, value in named.items():
        rates[code.upper()] = _rate(code, value)
    return rates


def _rate(code: str, value: str) -> Decimal:
    try:
        rate = Decimal(value)
    except InvalidOperation:
        rate = Decimal("NaN")
    if not rate.is_finite() or rate <= 0:
        raise ConfigError(f"the rate of {code} is {value!r}", hint="use a positive number, e.g. 150")
    return rate
