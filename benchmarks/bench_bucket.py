"""How long deleting many objects takes beside `aws s3 rm --recursive`, on the rehearsal's S3.

Both are whole processes: they start, list what is below the prefix and delete it. The double runs in a
process of its own and answers at once, from memory: what a request costs at AWS, and on the way there, comes
on top for each of them. The AWS CLI is installed in an environment of its own, which goes afterwards; where
that cannot be had, its row is missing and a note says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Self

from measure import ROOT, Goal, Report, arguments, child, compile_everything, show

from cloudrun.bucket import open_bucket
from cloudrun.config import load_settings
from cloudrun.providers.aws.bucket import DELETE_KEYS

OBJECTS = 5_000
BUCKET, PREFIX = "results", "svhn/8f3k"
ADDRESS = f"s3://{BUCKET}/{PREFIX}"
OURS, THEIRS = "open_bucket().delete()", "aws s3 rm --recursive"
CALLS = "DeleteObjects calls of ours"


def main() -> None:
    parser = arguments(__doc__ or "", rounds=3)
    parser.add_argument("--objects", type=int, default=OBJECTS, help=f"that go ({OBJECTS:,})")
    parser.add_argument("--aws", type=Path, help="the AWS CLI's command; without it, one is installed")
    parser.add_argument("--role", choices=("serve", "delete"), help="for the benchmark's own children")
    options = parser.parse_args()
    if options.role:
        {"serve": serve, "delete": delete}[options.role]()
        return
    compile_everything()
    with tempfile.TemporaryDirectory() as folder, Double(folder) as double:
        report = Report(f"{options.objects:,} objects below a prefix", "s")
        aws = options.aws or install_aws(Path(folder, "aws"), report)
        measure(report, double, aws, options.objects, options.rounds)
    show([report], as_json=options.json)


def measure(report: Report, double: Double, aws: Path | None, objects: int, rounds: int) -> None:
    cases = {OURS: [sys.executable, __file__, "--role", "delete"]}
    if aws is not None:
        cases[THEIRS] = [str(aws), "s3", "rm", ADDRESS, "--recursive", "--only-show-errors"]
    for number in range(-1, rounds):  # the first one warms up
        for case, command in cases.items():
            double.fill(objects if number >= 0 else DELETE_KEYS)
            seconds = child(command, env=double.environment).wall_s
            left, calls = double.left(), double.delete_calls()
            assert left == 0, f"{case} left {left} objects"
            if number >= 0:
                report.add(case, [seconds])
            if number >= 0 and case == OURS:
                report.add(CALLS, [calls])
    report.goals = [Goal(OURS, THEIRS, 1 / 5), Goal(CALLS, "", -(-objects // DELETE_KEYS))]


def delete() -> None:
    """Our side, as a process of its own."""
    bucket = open_bucket(ADDRESS, load_settings())
    bucket.delete([each.key for each in bucket.list()])


def install_aws(folder: Path, report: Report) -> Path | None:
    """The AWS CLI's command, in an environment of its own; None, and a note, where it cannot be had."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "awscli"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        report.notes.append(f"no AWS CLI to compare with: {reason}")
        return None
    compile_everything(folder / "lib")
    version = subprocess.run(
        [folder / "bin" / "aws", "--version"], capture_output=True, text=True, check=True
    )
    report.notes.append(version.stdout.split()[0])
    return folder / "bin" / "aws"


class Double:
    """The rehearsal's S3 in a process of its own, steered over its pipes."""

    def __init__(self, folder: str) -> None:
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environment |= {
            "CLOUDRUN_HOME": f"{folder}/home",
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": f"{folder}/no-config",
            "AWS_SHARED_CREDENTIALS_FILE": f"{folder}/no-credentials",
            "PYTHONPATH": str(ROOT),
        }

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--role", "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        self.environment["AWS_ENDPOINT_URL"] = self._hear()
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()  # the end of its input is its end

    def fill(self, objects: int) -> None:
        self._ask(f"fill {objects}")

    def left(self) -> int:
        return int(self._ask("left"))

    def delete_calls(self) -> int:
        """Since the last filling."""
        return int(self._ask("calls"))

    def _ask(self, words: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def serve() -> None:
    """The double's side of the pipes."""
    from moto.s3.models import s3_backends

    from cloudrun.sim.aws import AwsDouble

    with AwsDouble() as double:
        backend = s3_backends["123456789012"]["aws"]
        backend.create_bucket(BUCKET, "us-east-1")
        print(double.url, flush=True)
        for words in map(str.split, sys.stdin):
            if words[0] == "fill":
                for number in range(int(words[1])):
                    backend.put_object(BUCKET, f"{PREFIX}/outputs/{number // 100}/{number}.bin", b"1")
                double.forget_calls()
                print("filled", flush=True)
            elif words[0] == "left":
                print(len(backend.head_bucket(BUCKET).keys), flush=True)
            else:
                deleting = ("DeleteObject", "DeleteObjects")
                print(sum(call.action in deleting for call in double.calls()), flush=True)


if __name__ == "__main__":
    main()
