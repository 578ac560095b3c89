"""The records that travel along the road, all frozen, and the words for their states.

Money is Decimal US dollars, times are aware UTC datetimes, units stand in the names.
Nothing here does I/O; this module imports only the standard library, so that
`cloudrun status` starts fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path


class Market(StrEnum):
    """How a machine is paid for. `own`: nobody bills it, as this computer or a host you attached."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"
    OWN = "own"


class MachineState(StrEnum):
    """What the provider says of a machine. `halted`: switched off from inside and billed on, as Azure does
    until somebody deallocates it; `stop` makes it a stopped one."""

    PENDING = "pending"
    RUNNING = "running"
    HALTED = "halted"
    STOPPED = "stopped"
    PREEMPTED = "preempted"
    TERMINATED = "terminated"

    @property
    def gone(self) -> bool:
        return self in (MachineState.PREEMPTED, MachineState.TERMINATED)


class Stage(StrEnum):
    """The ten named stages of the road, in order."""

    LOAD = "load"
    RESOLVE = "resolve"
    CHOOSE = "choose"
    BUNDLE = "bundle"
    RECORD = "record"
    LAUNCH = "launch"
    PROVISION = "provision"
    START = "start"
    FOLLOW = "follow"
    RELEASE = "release"


class RunState(StrEnum):
    """Where a run stands. The last five are final."""

    STARTING = "starting"
    QUEUED = "queued"
    RUNNING = "running"
    RELEASING = "releasing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"
    LOST = "lost"

    @property
    def final(self) -> bool:
        return self in FINAL_RUN_STATES


FINAL_RUN_STATES = frozenset(
    {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.TIMED_OUT, RunState.LOST}
)

EXIT_RESUME_ME = 75  # EX_TEMPFAIL of sysexits.h: the job saved its state and asks to be resumed


class Outcome(StrEnum):
    """How one machine's try at a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PREEMPTED = "preempted"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    NO_CAPACITY = "no-capacity"
    LOST = "lost"


# --- what is asked for -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GpuNeed:
    """The least GPU that a job accepts. count 0 means that it also runs on a CPU alone."""

    count: int = 0
    min_memory_gib: float = 0.0
    min_capability: float = 0.0


@dataclass(frozen=True, slots=True)
class Metric:
    """The number by which runs of a job are compared, as named in metrics.jsonl."""

    name: str
    direction: str = "max"  # "max" | "min"


@dataclass(frozen=True, slots=True)
class Preset:
    """A named set of arguments and limits of a job."""

    name: str
    args: tuple[str, ...] = ()
    max_hours: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class DataNeed:
    """An input that a job reads below CLOUDRUN_DATA_DIR/name; the job says how it gets there."""

    name: str
    description: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A job folder as its job.toml describes it (stage 1)."""

    name: str
    folder: Path
    command: tuple[str, ...]
    stacks: tuple[str, ...]  # accepted stacks, best first
    gpu: GpuNeed = field(default_factory=GpuNeed)
    presets: tuple[Preset, ...] = ()
    data: tuple[DataNeed, ...] = ()
    outputs: str = "outputs"  # folder below the job's, the only place it writes
    metric: Metric | None = None
    resume: bool = False  # understands CLOUDRUN_RESUME_FROM and exits 75 on SIGTERM
    shared: tuple[str, ...] = ()  # modules of jobs/shared placed in the job's tree
    project: str = "default"
    description: str = ""


@dataclass(frozen=True, slots=True)
class Stack:
    """Pinned driver, CUDA, cuDNN, Python, frameworks and tuning (stage 2)."""

    name: str
    description: str = ""
    python: str = ""
    cuda: str = ""
    cudnn: str = ""
    driver: str = ""
    frameworks: tuple[tuple[str, str], ...] = ()  # (name, version pin)
    min_capability: float | None = None  # least and most GPU compute capability it can drive
    max_capability: float | None = None
    needs_gpu: bool = False
    images: tuple[tuple[str, str], ...] = ()  # (provider, image key)
    steps: tuple[str, ...] = ()  # names of provisioning steps, in order
    source: str = ""  # where the compatibility facts come from
    os: str = ""  # e.g. "ubuntu-16.04"
    packages: tuple[tuple[str, str], ...] = ()  # (apt name, exact version)
    repositories: tuple[str, ...] = ()  # apt repository lines, or names that the step knows: "nvidia-cuda"
    pip: tuple[tuple[str, str], ...] = ()  # (name, version pin) of what the frameworks stand on
    wheels: tuple[tuple[str, str], ...] = ()  # (name, URL) of those that are on no index
    sha256: tuple[tuple[str, str], ...] = ()  # (name, hex digests of its files); for each of them or for none
    lock: tuple[tuple[str, str, str], ...] = ()  # (name, version, hex digests) of all that pip installs
    theanorc: tuple[tuple[str, str], ...] = ()  # ("section.key", value)
    env: tuple[tuple[str, str], ...] = ()
    tuning: tuple[tuple[str, str], ...] = ()  # persistence, auto-boost, clocks


# --- what is offered and rented ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """Provider + region + type + market + price. A price of None is unknown, never cheapest."""

    provider: str
    region: str
    type: str
    market: Market
    price_per_hour_usd: Decimal | None
    price_as_of: date | None = None
    zone: str = ""
    gpu: str = ""
    gpu_count: int = 0
    gpu_memory_gib: float = 0.0
    gpu_capability: float | None = None
    vcpus: int = 0
    memory_gib: float = 0.0
    fits: bool = True
    why_not: str = ""
    warning: str = ""  # e.g. retired, with its successors
    quoted: tuple[tuple[str, Decimal], ...] = ()  # (currency, price an hour) where the provider quotes others


@dataclass(frozen=True, slots=True)
class Guard:
    """The policy with which a machine ends itself, no client needed. It travels in the boot payload.

    Times are this computer's; issued_at lets the machine take its own clock's error out.
    """

    issued_at: datetime
    deadline_at: datetime | None = None
    idle_minutes: float | None = 30.0  # no run, no SSH session, GPU unused; None = never
    keep: bool = False  # the user opted out of both


class OnPreempt(StrEnum):
    """What becomes of a spot machine that its provider takes: it ends, or waits with its disk."""

    TERMINATE = "terminate"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What a user may ask of a launch beyond type, market and stack. Empty: as the provider likes."""

    on_preempt: OnPreempt | None = None
    max_price_per_hour_usd: Decimal | None = None  # spot only; None = at most the on-demand price
    subnet: str = ""
    fixed_address: bool = False  # a public address that stays over stop and start
    dns_label: str = ""  # first part of the machine's DNS name, where the provider gives one
    resource_group: str = ""  # Azure: one that exists, for accounts that may not make their own
    disk_type: str = ""  # the provider's own name for a kind of disk, e.g. Premium_LRS
    base_image: bool = False  # the published image, also where one of one's own has the stack on it


NO_OPTIONS = LaunchOptions()


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """All that a provider needs to launch one machine. Launching is idempotent by token."""

    token: str
    name: str
    offer: Offer
    stack: Stack
    guard: Guard
    image: str = ""
    disk_gb: int = 0
    run_owned: bool = False  # launched for one run and released after it
    tags: tuple[tuple[str, str], ...] = ()
    options: LaunchOptions = LaunchOptions()


@dataclass(frozen=True, slots=True)
class SshAddress:
    """How to reach a machine: everything a shell needs and nothing else.

    host_key is one line as in an OpenSSH public key file, two while it is being replaced, "" while it is
    not yet known.
    """

    host: str
    port: int
    user: str
    key_path: Path
    host_key: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """A computer that runs jobs, rented or owned."""

    id: str  # the provider's own id
    name: str
    provider: str
    region: str
    type: str
    market: Market
    state: MachineState
    token: str = ""
    zone: str = ""
    address: SshAddress | None = None
    stack: str = ""
    price_per_hour_usd: Decimal | None = None
    launched_at: datetime | None = None
    ended_at: datetime | None = None  # the provider's own stop time
    deadline_at: datetime | None = None
    idle_minutes: float | None = None  # it ends itself after this long without work; None = never
    run_owned: bool = False
    provisioned: bool = False  # stage 7 is done
    versions: tuple[tuple[str, str], ...] = ()  # read back in stage 7
    gpu: str = ""
    gpu_count: int = 0
    gpu_memory_gib: float = 0.0
    gpu_capability: float | None = None
    disk_gb: int = 0  # of its own disk that is billed; 0 = none, or not known
    detail: tuple[tuple[str, str], ...] = ()  # the provider's private facts


# --- what travels ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle. Paths are relative, with /, and may hold surrogate-escaped bytes."""

    path: str
    size: int
    mode: int  # permission bits
    sha256: str  # "" for a symlink
    link: str = ""  # target of a symlink that stays inside the tree


@dataclass(frozen=True, slots=True)
class Ignored:
    """A path that is left behind, and the rule that says so ("FILE:LINE pattern" or a built-in rule)."""

    path: str
    rule: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A job's code as it will run: an immutable manifest with content hashes (stage 4)."""

    digest: str  # sha256 over the sorted manifest
    files: tuple[BundleFile, ...]
    root: Path | None = None  # None once it is a snapshot in the store
    ignored: tuple[Ignored, ...] = ()
    secrets: tuple[str, ...] = ()  # paths that look like keys or .env files
    sources: tuple[tuple[str, Path], ...] = ()  # shared modules: (path in the bundle, file taken)

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class DataInput:
    """Data that a run reads at CLOUDRUN_DATA_DIR/mount: a dataset's version, or outputs of another run.

    `digest` says the content. With `url` the machine fetches it itself, and the sizes are not known (0).
    """

    mount: str
    digest: str
    size_bytes: int = 0
    files: int = 0
    name: str = ""  # of the dataset, with its version
    version: str = ""
    run: str = ""  # id of the run whose outputs it is, and the folder below them
    path: str = ""
    url: str = ""
    sha256: str = ""  # of what the address gives
    extract: bool = False

    @property
    def source(self) -> str:
        """`horses:v1`, or `8f3k2m4n:features`."""
        return f"{self.name}:{self.version}" if self.name else f"{self.run}:{self.path}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages 1 to 4 as one record: free to make, metered to execute."""

    job: Job
    preset: str
    args: tuple[str, ...]
    stack: Stack
    candidates: tuple[Offer, ...]  # cheapest fitting first; empty with `machine` set
    bundle: Bundle
    machine: str = ""  # an existing machine's name; "" = launch one for the run
    target_reason: str = ""  # one sentence: why there
    max_hours: float | None = None
    budget_usd: Decimal | None = None
    worst_case_usd: Decimal | None = None
    disk_gb: int = 0
    keep: bool = False
    options: LaunchOptions = LaunchOptions()
    retry_until_up: bool = False  # when every candidate refused, wait and begin anew
    warnings: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()  # for the process; secrets never stand here
    stage_seconds: tuple[tuple[Stage, float], ...] = ()
    data: tuple[DataInput, ...] = ()
    outputs_to: str = ""  # s3://bucket/prefix or az://container/prefix where outputs go too


# --- what happened -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One request to execute a job. The store keeps it; `stage` is the stage being walked."""

    id: str
    job: str
    project: str
    preset: str
    args: tuple[str, ...]
    command: tuple[str, ...]
    stack: str
    bundle: str  # digest
    outputs: str  # the job's outputs folder name
    state: RunState
    stage: Stage
    submitted_at: datetime
    machine: str = ""  # name of the machine of the current attempt
    on: str = ""  # the existing machine it was asked to use, "" = launch its own
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    message: str = ""
    metric_name: str = ""
    metric_direction: str = "max"
    metric_value: float | None = None
    outputs_bytes: int = 0
    cost_usd: Decimal | None = None
    max_hours: float | None = None
    budget_usd: Decimal | None = None
    resume: bool = False
    resume_of: str = ""  # id of the run whose checkpoint it starts from
    cancel_requested: bool = False
    detached: bool = False
    supervisor_pid: int | None = None
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One machine's try at a run. The token makes its launch idempotent."""

    run: str
    number: int  # from 1
    token: str
    offer: Offer
    machine: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    message: str = ""
    received_bytes: int = 0  # pulled home, and not in the ledger yet


@dataclass(frozen=True, slots=True)
class Charge:
    """One paid thing, opened before it exists and closed at the cloud's own stop time."""

    id: int | None
    machine: str
    run: str
    what: str  # compute | disk | address | egress | transfer | snapshot
    provider: str
    region: str
    market: Market
    unit: str  # hour | GB-month
    unit_price_usd: Decimal | None
    price_as_of: date | None
    opened_at: datetime
    closed_at: datetime | None = None
    quantity: Decimal = Decimal(1)  # GB for disks, 1 for compute
    estimated: bool = False
    void: bool = False  # the launch failed: it costs nothing
    follows: bool = False  # the same machine went on at another price: no minimum of its own


@dataclass(frozen=True, slots=True)
class Result:
    """What a remote command said. Truthy on success."""

    command: str
    exit_code: int
    stdout: bytes
    stderr: bytes

    def __bool__(self) -> bool:
        return self.exit_code == 0

    @property
    def text(self) -> str:
        """stdout as text, undecodable bytes replaced, trailing newline removed."""
        return self.stdout.decode("utf-8", "replace").rstrip("\n")
