"""Settings: the only reader of our environment variables and configuration file.

Sources, strongest first: CLOUDRUN_* environment variables, config.toml in the
configuration folder, defaults. The provider SDKs read their own variables themselves.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

from cloudrun.errors import ConfigError

DEFAULT_RATES = {"USD": Decimal(1), "JPY": Decimal(110)}  # 110 JPY: the rate of the 2017 reports

LEAST_RATE, MOST_RATE = Decimal("1e-9"), Decimal("1e9")  # past these it is a slip, and sums lose their cents
MOST_BUDGET_USD = Decimal(10) ** 9  # a month; past this it is a slip
RATE_PREFIX = "CLOUDRUN_RATE_USD_"
FILE_KEYS = (
    "ssh_port",
    "poll_s",
    "currency",
    "rates",
    "data_dir",
    "shell",
    "address_url",
    "azure_endpoint",
    "azure_prices_url",
    "outputs",
    "frameworks",
    "nvidia_repository_url",
    "pip_index_url",
    "wheels_url",
    "budget",
)
ADDRESS_URL = "https://checkip.amazonaws.com"  # AWS's own answer to "what is my address": plain text
_TABLES = ("rates", "budget")  # settings that hold several values
AZURE_ENDPOINT = "https://management.azure.com"
AZURE_PRICES_URL = "https://prices.azure.com/api/retail/prices"  # open to everybody, no account needed
NVIDIA_REPOSITORY_URL = "https://developer.download.nvidia.com"  # its apt repositories lie below compute/
PINNED, AS_FOUND = "pinned", "as-found"


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
    address_url: str = ADDRESS_URL  # tells this computer's public address, which firewalls let in
    azure_endpoint: str = AZURE_ENDPOINT  # Azure Resource Manager
    azure_prices_url: str = AZURE_PRICES_URL
    outputs: str = ""  # s3://bucket/prefix or az://container/prefix where the outputs of every run go too
    frameworks: str = PINNED  # as-found: a framework that is there does, whatever its version
    nvidia_repository_url: str = NVIDIA_REPOSITORY_URL  # or a mirror's, with #FINGERPRINT of its own key
    pip_index_url: str = ""  # for pip on machines; "" = pip's own
    wheels_url: str = ""  # a mirror of the servers of stacks' [wheels]; "" = those themselves
    budgets: Mapping[str, Decimal] = field(default_factory=dict)  # USD a month: by project, "" = in all
    sim: Path | None = None  # folder of the rehearsal cloud that this process talks to; None = the real ones

    @property
    def store_path(self) -> Path:
        return self.home / "cloudrun.sqlite"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def buckets_dir(self) -> Path:
        """Which run's outputs go to which bucket: a file for each run that has one."""
        return self.home / "buckets"

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
    def sim_dir(self) -> Path:
        """Where the rehearsal cloud keeps its machines and says how to reach it."""
        return self.sim or self.home / "sim"

    @property
    def kept_datasets_dir(self) -> Path:
        """Versions of datasets, their manifests and their content by hash."""
        return self.home / "datasets"

    @property
    def datasets_dir(self) -> Path:
        """What local machines find in CLOUDRUN_DATA_DIR."""
        return self.data_dir or self.home / "data"

    def as_environ(self) -> dict[str, str]:
        """The same settings as environment variables, for a process of ours that outlives this one."""
        named = {
            "CLOUDRUN_HOME": str(self.home),
            "CLOUDRUN_SSH_PORT": str(self.ssh_port),
            "CLOUDRUN_POLL_S": str(self.poll_s),
            "CLOUDRUN_SHELL": self.shell,
            "CLOUDRUN_DATA_DIR": str(self.data_dir or ""),
            "CLOUDRUN_ADDRESS_URL": self.address_url,
            "CLOUDRUN_AZURE_ENDPOINT": self.azure_endpoint,
            "CLOUDRUN_AZURE_PRICES_URL": self.azure_prices_url,
            "CLOUDRUN_OUTPUTS": self.outputs,
            "CLOUDRUN_FRAMEWORKS": self.frameworks,
            "CLOUDRUN_NVIDIA_REPOSITORY_URL": self.nvidia_repository_url,
            "CLOUDRUN_PIP_INDEX_URL": self.pip_index_url,
            "CLOUDRUN_WHEELS_URL": self.wheels_url,
            "CLOUDRUN_SIM": str(self.sim or ""),
        }
        return {name: value for name, value in named.items() if value}


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. Raises ConfigError with the variable or key named."""
    environ = os.environ if environ is None else environ
    home = _home(environ)
    file = home / "config.toml"
    sources = _Sources(environ, file, _read_file(file))
    return Settings(
        home=home,
        ssh_port=_whole_number(sources, "ssh_port", 22, least=1, most=65535),
        poll_s=_number(sources, "poll_s", 15.0, least=0.01, most=600),
        currency=_text(sources, "currency", "USD").upper(),
        rates=_rates(sources),
        data_dir=_path(sources, "data_dir"),
        shell=_choice(sources, "shell", ("", "openssh", "paramiko")),
        address_url=_text(sources, "address_url", ADDRESS_URL),
        azure_endpoint=_text(sources, "azure_endpoint", AZURE_ENDPOINT).rstrip("/"),
        azure_prices_url=_text(sources, "azure_prices_url", AZURE_PRICES_URL),
        outputs=_text(sources, "outputs", ""),
        frameworks=_choice(sources, "frameworks", (PINNED, AS_FOUND)),
        nvidia_repository_url=_text(sources, "nvidia_repository_url", NVIDIA_REPOSITORY_URL),
        pip_index_url=_text(sources, "pip_index_url", ""),
        wheels_url=_text(sources, "wheels_url", "").rstrip("/"),
        budgets=_budgets(sources),
        sim=_absolute(environ["CLOUDRUN_SIM"], "CLOUDRUN_SIM") if environ.get("CLOUDRUN_SIM") else None,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it holds now. source: default, file or environment; place: the file or the variable."""

    name: str
    value: str
    source: str
    place: str = ""


def explain_settings(environ: Mapping[str, str] | None = None) -> list[Setting]:
    """Every setting with where it comes from, in the order of the documentation. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    settings = load_settings(environ)
    file = settings.home / "config.toml"
    sources = _Sources(environ, file, _read_file(file))
    home = ("environment", "CLOUDRUN_HOME") if environ.get("CLOUDRUN_HOME") else ("default", "")
    found = [Setting("home", str(settings.home), *home)]
    for key in FILE_KEYS:
        if key not in _TABLES:
            value = getattr(settings, key)
            found.append(Setting(key, "" if value is None else str(value), *sources.origin(key)))
    found += [
        Setting(f"rates.{code}", str(rate), *_rate_origin(sources, code))
        for code, rate in settings.rates.items()
    ]
    found += [
        Setting(f"budget.projects.{project}" if project else "budget.month", str(amount), "file", str(file))
        for project, amount in settings.budgets.items()
    ]
    sim = ("environment", "CLOUDRUN_SIM") if settings.sim else ("default", "")
    return [*found, Setting("sim", str(settings.sim or ""), *sim)]


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where values come from, and how to name the place of a bad one."""

    environ: Mapping[str, str]
    file: Path
    stored: Mapping[str, object]

    def find(self, key: str, default: object) -> tuple[object, str]:
        """The value and its place. An empty variable counts as not set."""
        variable = "CLOUDRUN_" + key.upper()
        if self.environ.get(variable):
            return self.environ[variable], variable
        return self.stored.get(key, default), f"{self.file}: {key}"

    def origin(self, key: str) -> tuple[str, str]:
        """What kind of source the value comes from, and its name."""
        variable = "CLOUDRUN_" + key.upper()
        if self.environ.get(variable):
            return "environment", variable
        return ("file", str(self.file)) if key in self.stored else ("default", "")


def _home(environ: Mapping[str, str]) -> Path:
    if environ.get("CLOUDRUN_HOME"):
        return _absolute(environ["CLOUDRUN_HOME"], "CLOUDRUN_HOME")
    from platformdirs import user_data_path

    return user_data_path("cloudrun", appauthor=False)


def _read_file(path: Path) -> Mapping[str, object]:
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: {error}", hint="mend or remove that file") from error
    unknown = sorted(set(stored) - set(FILE_KEYS))
    if unknown:
        raise ConfigError(f"{path}: no setting {unknown[0]!r}", hint=f"known: {', '.join(FILE_KEYS)}")
    return stored


def _text(sources: _Sources, key: str, default: str) -> str:
    value, place = sources.find(key, default)
    if not isinstance(value, str):
        raise ConfigError(f"{place} is {value!r}", hint="write text in quotes")
    return value


def _choice(sources: _Sources, key: str, allowed: tuple[str, ...]) -> str:
    value, place = sources.find(key, allowed[0])
    if not isinstance(value, str) or value not in allowed:
        names = ", ".join(name for name in allowed if name)
        raise ConfigError(f"{place} is {value!r}", hint=f"use one of: {names}")
    return value


def _whole_number(sources: _Sources, key: str, default: int, *, least: int, most: int) -> int:
    value = _number(sources, key, default, least=least, most=most)
    if not value.is_integer():
        raw, place = sources.find(key, default)
        raise ConfigError(f"{place} is {raw!r}", hint=f"use a whole number from {least} to {most}")
    return int(value)


def _number(sources: _Sources, key: str, default: float, *, least: float, most: float) -> float:
    raw, place = sources.find(key, default)
    try:
        value = float(raw) if isinstance(raw, str | int | float) and not isinstance(raw, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not least <= value <= most:
        raise ConfigError(f"{place} is {raw!r}", hint=f"use a number from {least:g} to {most:g}")
    return value


def _path(sources: _Sources, key: str) -> Path | None:
    value, place = _text(sources, key, ""), sources.find(key, "")[1]
    return _absolute(value, place) if value else None


def _absolute(text: str, place: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~name of nobody
        raise ConfigError(f"{place} is {text!r}: {error}", hint="write the whole path") from error


def _rates(sources: _Sources) -> dict[str, Decimal]:
    """Units of each currency for one US dollar: CLOUDRUN_RATE_USD_JPY=150, or [rates] JPY = 150."""
    rates = dict(DEFAULT_RATES)
    table = sources.stored.get("rates", {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{sources.file}: rates is {table!r}", hint="write: [rates] then JPY = 150")
    for code, value in table.items():
        rates[code.upper()] = _rate(str(value), f"{sources.file}: rates.{code}")
    for name, value in sources.environ.items():
        if name.startswith(RATE_PREFIX) and value:
            rates[name.removeprefix(RATE_PREFIX).upper()] = _rate(value, name)
    return rates


def _rate(value: str, place: str) -> Decimal:
    try:
        rate = Decimal(value)
    except InvalidOperation:
        rate = Decimal("NaN")
    if not rate.is_finite() or not LEAST_RATE <= rate <= MOST_RATE:
        raise ConfigError(f"{place} is {value!r}", hint="use a positive number, e.g. 150")
    return rate


def _rate_origin(sources: _Sources, code: str) -> tuple[str, str]:
    if sources.environ.get(RATE_PREFIX + code):
        return "environment", RATE_PREFIX + code
    table = sources.stored.get("rates", {})
    stored = isinstance(table, Mapping) and code in {str(name).upper() for name in table}
    return ("file", str(sources.file)) if stored else ("default", "")


def _budgets(sources: _Sources) -> dict[str, Decimal]:
    """[budget] month = "50", and [budget.projects] svhn = "20": US dollars a month (UTC)."""
    table = sources.stored.get("budget", {})
    projects = table.get("projects", {}) if isinstance(table, Mapping) else None
    if (
        not isinstance(table, Mapping)
        or not isinstance(projects, Mapping)
        or set(table) - {"month", "projects"}
    ):
        hint = "cloudrun config budget --month 50 writes it; remove it from the file first"
        raise ConfigError(f"{sources.file}: budget is {table!r}", hint=hint)
    found = {"": table["month"]} if "month" in table else {}
    return {
        project: _dollars(value, f"{sources.file}: budget{f'.projects.{project}' if project else '.month'}")
        for project, value in {**found, **projects}.items()
    }


def _dollars(value: object, place: str) -> Decimal:
    try:
        amount = Decimal("NaN" if isinstance(value, bool) else str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 < amount <= MOST_BUDGET_USD:
        raise ConfigError(f"{place} is {value!r}", hint="use a positive amount of US dollars, e.g. 50")
    return amount
