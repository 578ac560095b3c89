"""The verbs on the real road: jobs of one line of shell on local machines, over real SSH."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import Cli

from cloudrun.client import Client
from cloudrun.keys import fingerprint
from cloudrun.models import RunState

JobMaker = Callable[..., Path]
RESULT = (
    'mkdir -p "$CLOUDRUN_OUTPUT_DIR/plots"; echo hello; '
    'echo picture > "$CLOUDRUN_OUTPUT_DIR/plots/curves.png"; '
    'echo \'{"epoch": 1, "val_acc": 0.75}\' > "$CLOUDRUN_OUTPUT_DIR/metrics.jsonl"'
)
# Says that it runs, then waits to be told; on SIGTERM it saves and asks to be resumed.
PATIENT = 'trap "echo saved; exit 75" TERM; echo ready; while :; do sleep 0.1; done'


def test_init_then_submit_works_at_once(cli: Cli) -> None:
    made = cli("init", "hello")
    assert made.out.split() == ["hello/job.toml", "hello/train.py", "hello/.cloudrunignore"]
    said = cli("submit", "hello", "--json", "--", "--epochs", "2")
    assert said.code == 0
    assert (said.json["state"], said.json["metric"]["name"]) == ("succeeded", "val_loss")
    assert "epoch 2/2" in said.err
    again = cli("init", "hello")
    assert (again.code, "is there already" in again.err) == (2, True)


def test_submit_shows_the_road_and_the_result(cli: Cli, make_job: JobMaker) -> None:
    make_job(RESULT, metric="val_acc")
    said = cli("submit", "tiny")
    assert said.code == 0
    assert said.out.startswith("hello\n")
    assert "validation accuracy  0.7500" in said.out
    assert "outputs/plots/curves.png" in said.out
    assert "cost                 0.00 USD" in said.out
    assert said.out.count("  cloudrun ") == 3
    stages = [line.split()[1] for line in said.err.splitlines() if line[:2].strip().isdigit()]
    assert [name for name in stages if name != "record"] == (
        ["load", "resolve", "choose", "bundle", "launch", "provision", "start", "follow", "release"]
    )


def test_looking_at_a_run(cli: Cli, make_job: JobMaker, tmp_path: Path) -> None:
    make_job(RESULT, metric="val_acc")
    run = cli("submit", "tiny", "--json").json
    assert cli("status", "--json").json == [run]
    looked_at = cli("status", run["id"][:4], "--json").json
    assert looked_at.pop("stack_lock")["cpu_count"]
    assert looked_at == run
    assert run["id"] in cli("status").out
    detail = cli("status", "last").out
    assert "10 release" in detail
    assert "val_acc 0.7500" in detail
    assert cli("logs", "last").out == "hello\n"
    assert {file["path"] for file in cli("outputs", "list", "last", "--json").json} == {
        "metrics.jsonl",
        "plots/curves.png",
    }
    assert "plots/curves.png" in cli("outputs", "list", "last").out
    assert cli("outputs", "pull", "last", "--to", "results").out == "results\n"
    assert Path("results/plots/curves.png").read_text() == "picture\n"
    assert cli("outputs", "get", "last", "plots/curves.png").out == "curves.png\n"
    assert cli("outputs", "get", "last", "plots", "--to", "copy").out == "copy\n"
    assert Path("copy/curves.png").is_file()
    assert cli("clone", "last", "again").out == "again\n"
    assert Path("again/job.toml").read_text() == Path("tiny/job.toml").read_text()


def test_only_outputs_are_handed_out(cli: Cli, make_job: JobMaker) -> None:
    make_job(RESULT)
    assert cli("submit", "tiny", "--json").code == 0
    for path in ("../run.json", "/etc/passwd", "", "nothing", "plots/../../run.json"):
        said = cli("outputs", "get", "last", path, "--to", "-")
        assert (said.code, said.out) == (2, "")


def test_a_job_that_fails_is_exit_1_and_says_where_to_look(cli: Cli, make_job: JobMaker) -> None:
    make_job("echo no; exit 3")
    said = cli("submit", "tiny", "--json")
    assert said.code == 1
    assert (said.json["state"], said.json["exit_code"]) == ("failed", 3)
    error = json.loads(said.err.splitlines()[-1])
    assert error["error"] == "RunFailed"
    assert f"cloudrun logs {said.json['id']}" in error["hint"]


def test_dry_run_spends_nothing(cli: Cli, client: Client, make_job: JobMaker) -> None:
    make_job("true")
    said = cli("submit", "tiny", "p2.xlarge", "--spot", "--dry-run")
    assert said.code == 0
    assert "p2.xlarge spot" in said.out
    assert "USD an hour (price of " in said.out
    assert said.err == "dry run: nothing was spent\n"
    plan = cli("submit", "tiny", "--dry-run", "--json", "--", "x").json
    assert (plan["job"], plan["args"], plan["bundle"]["files"]) == ("tiny", ["x"], 2)
    assert client.runs() == []


def test_a_price_needs_a_yes(cli: Cli, client: Client, make_job: JobMaker) -> None:
    make_job("true")
    said = cli("submit", "tiny", "p2.xlarge", "--spot")
    assert (said.code, said.out) == (2, "")
    assert "-y" in said.err
    assert client.runs() == []


def test_secrets_come_from_the_environment(
    cli: Cli, make_job: JobMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job('echo "${#TOKEN} $PLAIN"')
    monkeypatch.setenv("TOKEN", "hunter22")
    cli("submit", "tiny", "--secret", "TOKEN", "--env", "PLAIN=a=b", "--json")
    assert cli("logs", "last").out == "8 a=b\n"
    assert cli("submit", "tiny", "--secret", "NOT_SET").code == 2
    assert cli("submit", "tiny", "--env", "NOVALUE").code == 2


def test_escape_sequences_in_a_log(cli: Cli, make_job: JobMaker) -> None:
    make_job(r"printf '\033[31mred\033[0m \033]0;title\007\302\233x\n'")
    assert "\x1b" not in cli("submit", "tiny").out
    assert cli("logs", "last").out == "red \n"
    raw = subprocess.run(
        [sys.executable, "-m", "cloudrun", "logs", "last", "--raw"], check=True, capture_output=True
    )
    assert raw.stdout == b"\x1b[31mred\x1b[0m \x1b]0;title\x07\xc2\x9bx\n"


def test_detach_cancel_restart(cli: Cli, client: Client, make_job: JobMaker) -> None:
    make_job(PATIENT, resume=True)
    begun = cli("submit", "tiny", "--detach")
    run = begun.out.strip()
    assert (begun.code, client.run(run).id) == (0, run)
    assert b"ready" in next(iter(client.logs(run, follow=True)))
    looked = cli("cancel", run, "--dry-run")
    assert (looked.code, client.run(run).state) == (0, RunState.RUNNING)
    ended = cli("cancel", run[:5], "--json")
    assert ended.json["state"] == "cancelled"
    assert cli("cancel", run).code == 2
    Path("tiny/job.sh").write_text("true\n")  # the run's own snapshot counts, not this
    assert cli("restart", run, "--detach").out.strip() == run
    assert cli("cancel", run, "-y", "--json").json["attempts"] == 2
    assert "attempt 2" in cli("status", run).out
    assert cli("attach", run).code == 1


def test_ctrl_c_leaves_the_run_alone_and_says_so(cli: Cli, client: Client, make_job: JobMaker) -> None:
    make_job(PATIENT, resume=True)
    watching = subprocess.Popen(
        [sys.executable, "-m", "cloudrun", "submit", "tiny"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert watching.stdout.readline() == "ready\n"
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=60)
    (run,) = client.runs()
    assert watching.returncode == 130
    assert "Traceback" not in err
    assert f"cloudrun attach {run.id}" in err
    assert not client.run(run.id).state.final
    assert cli("cancel", run.id, "-y").code == 0


def test_a_machine_from_launch_to_end(cli: Cli, client: Client, make_job: JobMaker) -> None:
    make_job("true")
    assert cli("machines", "list").err.startswith("no machines")
    launched = cli("launch", "local", "--name", "bench", "--json")
    assert (launched.code, launched.json["state"]) == (0, "running")
    assert cli("submit", "tiny", "--on", "bench", "--json").json["machine"] == "bench"
    (listed,) = cli("machines", "list", "--json").json
    assert (listed["name"], listed["cost_usd"], len(listed["runs"])) == ("bench", 0.0, 1)
    assert "bench" in cli("machines", "list").out
    assert cli("machines", "extend", "bench", "--hours", "2").out.endswith("(in 2 h)\n")
    assert cli("machines", "stop", "bench").code == 0
    assert client.machine("bench").state == "stopped"
    assert cli("start", "bench", "--json").json["state"] == "running"
    assert "its disk is deleted" in cli("terminate", "bench", "--dry-run").err
    assert client.machine("bench").state == "running"
    assert cli("terminate", "bench", "--json").json["state"] == "terminated"
    assert cli("machines", "list", "--json").json == []
    assert [machine["state"] for machine in cli("machines", "list", "--all", "--json").json] == ["terminated"]


def test_a_machine_with_a_run_is_not_ended_unasked(cli: Cli, client: Client, make_job: JobMaker) -> None:
    make_job(PATIENT, resume=True)
    cli("launch", "local", "--name", "bench")
    run = cli("submit", "tiny", "--on", "bench", "--detach").out.strip()
    assert b"ready" in next(iter(client.logs(run, follow=True)))
    said = cli("terminate", "bench")
    assert (said.code, run in said.err) == (2, True)
    assert client.machine("bench").state == "running"
    cli("cancel", run, "-y")


def test_a_host_is_attached_only_with_its_own_key(cli: Cli, client: Client) -> None:
    """The host is a local machine, reached as a stranger would reach it."""
    cli("launch", "local", "--name", "bench")
    address = client.machine("bench").address
    assert address is not None
    words = (
        "machines",
        "attach",
        "lab",
        f"{address.user}@{address.host}:{address.port}",
        "--key",
        str(address.key_path),
    )
    refused = cli(*words)
    assert refused.code == 2  # nobody is there to confirm the key
    shown = next(word for word in refused.err.split() if word.startswith("SHA256:"))
    assert shown == fingerprint(address.host_key)
    assert cli(*words, "--host-key", "SHA256:other").code == 5
    assert cli(*words, "--host-key", shown, "--json").json["provider"] == "attached"
    assert "the host itself stays" in cli("terminate", "lab").err
    assert client.machine("bench").state == "running"


def test_adopt_finds_what_a_lost_store_forgot(
    cli: Cli, client: Client, make_job: JobMaker, home: Path
) -> None:
    make_job("echo hello")
    cli("launch", "local", "--name", "bench")
    run = cli("submit", "tiny", "--on", "bench", "--json").json
    for path in home.glob("cloudrun.sqlite*"):
        path.unlink()
    assert cli("status", "--json").json == []
    assert [machine["name"] for machine in cli("machines", "adopt", "--json").json] == ["bench"]
    assert cli("status", "last", "--json").json["id"] == run["id"]
    assert cli("logs", run["id"]).out == "hello\n"


def test_exec_passes_words_streams_and_exit_code(cli: Cli) -> None:
    cli("launch", "local", "--name", "bench")

    def there(*words: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "cloudrun", "machines", "exec", "bench", *words],
            input=stdin,
            capture_output=True,
            env=os.environ,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    assert there("--", "printf", "%s|", "a b", "*", "-n") == (0, b"a b|*|-n|", b"")
    assert there("echo $((6*7)); echo oops >&2; exit 5") == (5, b"42\n", b"oops\n")
    content = bytes(range(256)) * 2000
    assert there("cat", stdin=content) == (0, content, b"")
    code, out, err = there()
    assert (code, out) == (2, b"")
    assert b"no command to run" in err


def test_ssh_gives_the_exit_code_of_the_command(cli: Cli) -> None:
    cli("launch", "local", "--name", "bench")
    done = subprocess.run(
        [sys.executable, "-m", "cloudrun", "ssh", "bench", "--", "sh", "-c", "exit 9"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 9


@pytest.mark.parametrize(
    ("words", "code", "fragment"),
    [
        (["status", "nonsense"], 2, "no run"),
        (["submit", "nowhere"], 2, "nowhere"),
        (["terminate", "nobody"], 2, "nobody"),
        (["logs", "last"], 2, "no run"),
        (["machines", "attach", "lab", "me@127.0.0.1:1"], 5, "127.0.0.1"),
        (["submit", "tiny", "--budget", "many"], 2, "US dollars"),
        (["init", "a b"], 2, "name"),
        (["offers", "no-such-type"], 2, "no-such-type"),
    ],
)
def test_what_cannot_be_is_said_with_a_hint(cli: Cli, words: list[str], code: int, fragment: str) -> None:
    said = cli(*words, *(["--json"] if words[0] in ("status", "terminate") else []))
    assert (said.code, said.out) == (code, "")
    assert fragment in said.err
    assert "hint" in said.err


def test_offers(cli: Cli) -> None:
    found = cli("offers", "p2.xlarge", "--spot", "--limit", "3", "--json").json
    assert [offer["type"] for offer in found] == ["p2.xlarge"] * 3
    table = cli("offers", "--gpu", "k80")
    assert table.out.splitlines()[0].split()[0] == "TYPE"
    assert "more offer" in table.err


def test_the_initial_job_resumes_to_the_same_numbers(cli: Cli, tmp_path: Path) -> None:
    """train.py stopped by SIGTERM and started again writes the very metrics of an uninterrupted one."""
    cli("init", "hello")

    def train(outputs: str, epochs: int, resume: str = "") -> Path:
        environ = {**os.environ, "CLOUDRUN_OUTPUT_DIR": outputs, "CLOUDRUN_RESUME_FROM": resume}
        subprocess.run(
            [sys.executable, "hello/train.py", "--epochs", str(epochs)],
            env=environ,
            check=True,
            capture_output=True,
        )
        return Path(outputs, "metrics.jsonl")

    whole = train("whole", 6).read_text()
    train("first", 3)
    assert train("second", 6, resume="first/checkpoint").read_text() == whole


def test_the_initial_job_saves_on_sigterm(cli: Cli) -> None:
    cli("init", "hello")
    job = subprocess.Popen(
        [sys.executable, "-u", "hello/train.py", "--epochs", "100000000"],
        stdout=subprocess.PIPE,
        env={**os.environ, "CLOUDRUN_OUTPUT_DIR": "out"},
    )
    assert job.stdout is not None
    job.stdout.readline()
    job.terminate()
    job.communicate(timeout=60)
    assert job.returncode == 75
    assert json.loads(Path("out/checkpoint/state.json").read_text())["epoch"] >= 1
