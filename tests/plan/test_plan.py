"""Stages 1 to 4: where a run goes, on which stack, at which price, and all that is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from cloudrun.bundle import snapshot
from cloudrun.config import Settings
from cloudrun.errors import Ambiguous, JobError, NotFound, ProviderError, Refused, UsageError
from cloudrun.models import Machine, MachineState, Market, Offer, Plan, Stage
from cloudrun.plan import find_offers, make_plan, plan_launch
from cloudrun.providers import load_provider
from cloudrun.providers.base import Provider

JOB = 'name = "tiny"\ncommand = "true"\nstack = ["cuda12-torch", "cuda11-torch", "cpu-torch"]\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "job.toml").write_text(JOB)
    return tmp_path / "tiny"


def machine(name: str, **facts: object) -> Machine:
    base = Machine(f"id-{name}", name, "local", "here", "local", Market.OWN, MachineState.RUNNING)
    return replace(base, **facts)  # type: ignore[arg-type]


@pytest.fixture
def plan(settings: Settings, job: Path):  # type: ignore[no-untyped-def]
    def make(*machines: Machine, job: Path | str = job, **asked: object) -> Plan:
        def providers(name: str) -> Provider:
            return load_provider(name, settings)

        return make_plan(settings, str(job), machines=machines, providers=providers, **asked)  # type: ignore[arg-type]

    return make


# --- where ---


def test_without_a_word_it_runs_on_this_computer(plan) -> None:  # type: ignore[no-untyped-def]
    made = plan()
    assert made.candidates[0].type == "local"
    assert made.target_reason == "this computer: no machine is ready, and none was named"
    assert made.worst_case_usd == 0
    assert [stage for stage, _ in made.stage_seconds] == [
        Stage.LOAD,
        Stage.RESOLVE,
        Stage.CHOOSE,
        Stage.BUNDLE,
    ]


def test_the_one_ready_machine_is_taken_and_two_are_not_chosen_between(plan) -> None:  # type: ignore[no-untyped-def]
    made = plan(machine("a"), machine("b", state=MachineState.STOPPED), machine("c", run_owned=True))
    assert (made.machine, made.candidates) == ("a", ())
    assert made.target_reason == "a: the one machine that is ready"
    two = plan(machine("a"), machine("b"))
    assert (two.machine, two.candidates[0].type) == ("", "local")
    assert "2 machines are ready" in two.target_reason


def test_on_names_a_machine_by_name_id_or_prefix_or_this_computer(plan) -> None:  # type: ignore[no-untyped-def]
    known = (machine("bench"), machine("bench-2"), machine("other"))
    assert plan(*known, on="bench").machine == "bench"
    assert plan(*known, on="id-other").machine == "other"
    assert plan(*known, on="oth").machine == "other"
    assert plan(machine("only"), on="local").machine == ""
    with pytest.raises(Ambiguous, match="2 machines"):
        plan(*known, on="ben")
    with pytest.raises(NotFound) as caught:
        plan(*known, on="benhc")
    assert "bench" in caught.value.hint


def test_on_a_type_rents_one(plan) -> None:  # type: ignore[no-untyped-def]
    assert plan(machine("a"), on="g4dn.xlarge").candidates[0].type == "g4dn.xlarge"


@pytest.mark.parametrize(
    ("asked", "match", "hint"),
    [
        ({"on": "off"}, "is stopped", "machines start off"),
        ({"on": "off", "type": "p2.xlarge"}, "both", "one of them"),
        ({"market": Market.SPOT}, "needs a type", "--spot"),
        ({"market": Market.SPOT, "type": "local"}, "not rented", "drop --spot"),
        ({"max_hours": 0.0}, "--max-hours is 0", "positive"),
        ({"max_hours": float("nan")}, "--max-hours is nan", "positive"),
        ({"env": (("A B", "x"),)}, "cannot be an environment variable", "NAME=value"),
        ({"env": (("CLOUDRUN_HOME", "x"),)}, "set by cloudrun", "another"),
        ({"type": "g5g.xlarge"}, "arm64", "what fits"),
        ({"type": "p2.xlarge", "stack": "cuda12-torch"}, "use cuda11-torch", "--stack cuda11-torch"),
        ({"type": "p3.2xlarge", "budget_usd": Decimal(1)}, "first hour .* 3.0760 USD", "budget"),
        ({"type": "p2.xlarge", "regions": ("mars-1",)}, "AWS has no region 'mars-1'", ""),
    ],
)
def test_what_is_refused(plan, asked: dict[str, object], match: str, hint: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=match) as caught:
        plan(machine("off", state=MachineState.STOPPED), **asked)
    assert hint in caught.value.hint


def test_other_mistakes_of_asking(plan, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for asked, kind in (
        ({"preset": "smok"}, NotFound),
        ({"stack": "cuda13"}, NotFound),
        ({"type": "p9.huge"}, NotFound),
        ({"job": tmp_path}, JobError),
        ({"job": "nothing"}, NotFound),
    ):
        with pytest.raises(kind) as caught:
            plan(**asked)
        assert caught.value.exit_code == 2
        assert caught.value.hint


# --- on what, at which price ---


def test_the_old_spot_gpu_from_the_catalogue(plan) -> None:  # type: ignore[no-untyped-def]
    made = plan(type="p2.xlarge", market=Market.SPOT, max_hours=10.0)
    first = made.candidates[0]
    assert (first.region, first.price_per_hour_usd, first.price_as_of) == (
        "us-west-2",
        Decimal("0.2177"),
        date(2024, 2, 21),
    )
    assert made.stack.name == "cuda11-torch"
    dearest = max(offer.price_per_hour_usd for offer in made.candidates)
    assert made.worst_case_usd == total(dearest, hours=10)
    text = " ".join(made.warnings)
    assert "retired" in text
    assert "g4dn.xlarge" in text
    assert "2024-02-21" in text


def test_the_worst_case_is_bound_by_hours_and_budget_and_else_unknown(plan) -> None:  # type: ignore[no-untyped-def]
    here = {"type": "g4dn.xlarge", "regions": ("us-east-1",)}
    price = plan(**here).candidates[0].price_per_hour_usd
    assert plan(**here).worst_case_usd is None
    assert plan(**here, max_hours=3.0).worst_case_usd == total(price, hours=3)
    assert plan(**here, budget_usd=Decimal(5)).worst_case_usd == 5
    assert plan(**here, max_hours=3.0, budget_usd=Decimal(1)).worst_case_usd == 1
    disk = plan(**here, max_hours=73.0, disk_gb=200).worst_case_usd
    assert disk == total(price, hours=73, disk_gb=200)
    assert plan(**here, max_hours=3.0, budget_usd=Decimal(7), keep=True).worst_case_usd == 7
    assert plan(**here, max_hours=3.0, keep=True).worst_case_usd is None
    assert plan(max_hours=3.0, keep=True).worst_case_usd == 0


def total(price_per_hour_usd: Decimal, *, hours: int, disk_gb: int = 100) -> Decimal:
    """Compute, public address (0.005 an hour) and disk (0.08 a GB-month of 730 hours), until the outputs are
    home, ten minutes past the limit."""
    billed = hours + Decimal(1) / 6
    disk = Decimal("0.08") * disk_gb * billed / 730
    return ((price_per_hour_usd + Decimal("0.005")) * billed + disk).quantize(Decimal("0.0001"))


def test_an_unknown_price_is_never_within_a_budget(plan) -> None:  # type: ignore[no-untyped-def]
    asked = {"type": "p2.xlarge", "market": Market.SPOT, "regions": ("us-gov-west-1",), "max_hours": 1.0}
    made = plan(**asked)
    assert made.worst_case_usd is None
    assert "unknown" in " ".join(made.warnings)
    with pytest.raises(Refused, match="no known price"):
        plan(**asked, budget_usd=Decimal(1000))


def test_candidates_over_the_budget_are_left_out(plan) -> None:  # type: ignore[no-untyped-def]
    made = plan(type="p2.xlarge", market=Market.SPOT, budget_usd=Decimal("0.3"))
    assert made.candidates
    assert all(offer.price_per_hour_usd < Decimal("0.3") for offer in made.candidates)


def test_a_provider_that_is_there_is_asked_and_not_the_catalogue(settings: Settings, job: Path) -> None:
    class Cloud:
        name = "aws"

        def offers(self, need: object) -> list[Offer]:
            assert (need.type, need.market) == ("p2.xlarge", Market.ON_DEMAND)  # type: ignore[attr-defined]
            return [Offer("aws", "moon-1", "p2.xlarge", Market.ON_DEMAND, Decimal("0.01"), gpu_count=1)]

    made = make_plan(settings, str(job), machines=(), providers=lambda _: Cloud(), type="p2.xlarge")  # type: ignore[arg-type, return-value]
    assert made.candidates[0].region == "moon-1"


def test_a_broken_local_provider_is_an_error_and_no_reason_for_the_catalogue(
    settings: Settings, job: Path
) -> None:
    def providers(name: str) -> Provider:
        raise ProviderError("broken")

    with pytest.raises(ProviderError, match="broken"):
        make_plan(settings, str(job), machines=(), providers=providers)


def test_a_gpu_job_on_a_machine_without_one_says_what_would_do(plan, job: Path) -> None:  # type: ignore[no-untyped-def]
    (job / "job.toml").write_text(JOB + "[gpu]\ncount = 1\nmin_memory_gib = 20\n")
    with pytest.raises(Refused, match="box does not fit: it has no GPU"):
        plan(machine("box"))
    with pytest.raises(Refused, match="12 GiB, the job needs 20") as caught:
        plan(type="p2.xlarge")
    assert "g6.xlarge" in caught.value.hint


def test_a_rented_machine_keeps_its_stack_and_ones_own_takes_any(plan) -> None:  # type: ignore[no-untyped-def]
    rented = machine(
        "t4", provider="aws", type="g4dn.xlarge", market=Market.ON_DEMAND, stack="cpu-torch",
        gpu="T4", gpu_count=1, gpu_memory_gib=16.0, gpu_capability=7.5, price_per_hour_usd=Decimal("0.5"),
    )  # fmt: skip
    made = plan(rented, max_hours=2.0)
    assert made.stack.name == "cpu-torch"
    assert made.worst_case_usd == Decimal("1.0319")  # with the disk of 100 GB and the address
    made = plan(rented, budget_usd=Decimal("0.25"))
    assert made.max_hours == pytest.approx(0.25 / 0.51596, rel=1e-4)
    assert made.worst_case_usd == Decimal("0.25")
    assert plan(rented, budget_usd=Decimal(9), max_hours=2.0).max_hours == 2
    assert plan(rented).worst_case_usd is None
    ends = datetime.now(UTC) + timedelta(hours=4)
    made = plan(replace(rented, deadline_at=ends))
    assert made.max_hours is None  # it may be extended
    assert round(made.worst_case_usd or 0, 2) == Decimal("2.06")
    assert plan(replace(rented, deadline_at=ends), max_hours=2.0).worst_case_usd == Decimal("1.0319")
    with pytest.raises(Refused, match="a budget needs a price, and that of t4 is unknown"):
        plan(replace(rented, price_per_hour_usd=None), budget_usd=Decimal(1))
    with pytest.raises(Refused, match=r"t4 has stack cpu-torch, the job accepts cuda12-torch"):
        plan(rented, stack="cuda12-torch")
    assert plan(machine("own", stack="none")).stack.name == "cpu-torch"


# --- what travels ---


def test_presets_arguments_and_limits_meet(plan, job: Path) -> None:  # type: ignore[no-untyped-def]
    text = 'name = "tiny"\ncommand = ["true"]\n[presets.smoke]\nargs = ["--a"]\nmax_hours = 0.5\n'
    (job / "job.toml").write_text(text)
    made = plan(preset="smoke", args=("--b",))
    assert (made.preset, made.args, made.max_hours) == ("smoke", ("--a", "--b"), 0.5)
    assert plan(preset="smoke", max_hours=2.0).max_hours == 2.0
    assert (plan().preset, plan().args, plan().max_hours) == ("", (), None)


def test_secrets_are_refused_unless_allowed(plan, job: Path) -> None:  # type: ignore[no-untyped-def]
    (job / ".env").write_text("A=1")
    with pytest.raises(Refused, match=r"\.env"):
        plan()
    assert plan(allow_secrets=True).bundle.secrets == (".env",)


def test_data_that_must_be_there(plan, job: Path, settings: Settings) -> None:  # type: ignore[no-untyped-def]
    (job / "job.toml").write_text(JOB + '[data.digits]\nrequired = true\ndescription = "fetch it"\n')
    with pytest.raises(Refused, match="digits") as caught:
        plan()
    assert caught.value.hint == "fetch it"
    assert plan(type="g4dn.xlarge").candidates  # another machine may have it
    (settings.datasets_dir / "digits").mkdir(parents=True)
    assert plan().candidates


def test_a_big_bundle_warns(plan, job: Path) -> None:  # type: ignore[no-untyped-def]
    with (job / "weights").open("wb") as file:
        file.truncate(500_000_001)
    assert "0.5 GB of code" in " ".join(plan().warnings)


def test_the_bundled_job_is_planned_from_anywhere_with_its_modules(plan, settings: Settings) -> None:  # type: ignore[no-untyped-def]
    made = plan(job="svhn_rcnn", preset="smoke")
    names = {file.path for file in made.bundle.files}
    assert {"job.toml", "train.py", "shared/checkpoint.py"} <= names
    kept = snapshot(made.bundle, settings.objects_dir)
    assert kept.digest == made.bundle.digest


# --- launch and offers ---


def test_a_launch_takes_this_computer_as_it_is_and_gives_a_rented_one_torch(settings: Settings) -> None:
    def providers(name: str) -> Provider:
        return load_provider(name, settings)

    stack, offers = plan_launch(providers=providers)
    assert (stack.name, offers[0].type) == ("none", "local")
    stack, offers = plan_launch(providers=providers, type="p2.xlarge", market=Market.SPOT)
    assert (stack.name, offers[0].market) == ("cuda11-torch", Market.SPOT)
    with pytest.raises(NotFound):
        plan_launch(providers=providers, type="p2.xxlarge")


def test_offers_are_listed_by_gpu_memory_type_and_market(settings: Settings) -> None:
    def providers(name: str) -> Provider:
        return load_provider(name, settings)

    k80 = find_offers(providers=providers, gpus=("k80",), market=Market.SPOT)
    assert k80
    assert {offer.gpu for offer in k80} == {"K80"}
    prices = [offer.price_per_hour_usd for offer in k80 if offer.price_per_hour_usd]
    assert prices == sorted(prices)
    big = find_offers(providers=providers, min_gpu_memory_gib=80)
    assert big
    assert all(offer.gpu_memory_gib >= 80 for offer in big)
    assert {offer.type for offer in find_offers(providers=providers, type="nc6")} == {"Standard_NC6"}


def test_a_local_plan_reads_no_price_list_and_loads_no_sdk(settings: Settings, job: Path) -> None:
    code = """
import sys
from pathlib import Path
from cloudrun.config import Settings
from cloudrun.plan import make_plan
from cloudrun.providers import load_provider
seen = []
sys.addaudithook(lambda event, args: seen.append((event, str(args[:1]).rstrip("',)"))))
settings = Settings(home=Path(sys.argv[1]))
make_plan(settings, sys.argv[2], machines=(), providers=lambda name: load_provider(name, settings))
print([what for event, what in seen if event == "socket.connect" or what.endswith(".csv")])
print([name for name in ("torch", "paramiko", "asyncssh", "boto3", "rich") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(settings.home), str(job)], capture_output=True, text=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"], done.stderr


@pytest.mark.parametrize(
    ("type", "stack"), [("t3.micro", "cuda12-torch"), ("g2.2xlarge", "cuda11-torch"), ("g5g.xlarge", "none")]
)
def test_every_misfit_has_a_hint(plan, type: str, stack: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Refused) as caught:
        plan(type=type, stack=stack)
    assert caught.value.hint
