"""Steps by themselves: what the system keeps, the login's variables, several GPUs, a distrusted key."""

from __future__ import annotations

from dataclasses import replace

from machine_help import Client, Rehearsal, wait_for
from provisioning_help import PINS, STACK, make_ready
from step_help import Step

from cloudrun.config import AS_FOUND
from cloudrun.provision_steps import check_script, read_checks, steps_of
from cloudrun.sim.packages import PackageServer
from cloudrun.stacks import load_stack

KERNEL = "linux-image-4.4.0-210-generic"
# Three GPUs of which the middle one takes no clocks; notes what it is asked to do.
SMI = """\
#!/bin/sh
case "$*" in
  *--query-gpu=index*) printf '0\\n1\\n2\\n'; exit 0 ;;
  -i\\ 1\\ -ac*) echo "Setting applications clocks is not supported for GPU 0000:00:1F.0." ; exit 3 ;;
  *-ac\\ 1,1*) echo "Specified clock combination is not among the supported ones"; exit 2 ;;
esac
echo "$*" >>/tmp/asked
"""


def put(client: Client, path: str, text: str) -> None:
    client.shell().run(f"sudo tee {path} >/dev/null && sudo chmod 755 {path}", input=text.encode())


def test_the_kernel_stays_through_an_upgrade(k80: Client, packages: PackageServer) -> None:
    for version in ("1.0", "2.0"):
        packages.add_deb(KERNEL, version)
    k80.run(f"sudo apt-get -q update && sudo apt-get -q -y install {KERNEL}=1.0")
    step = Step(k80, "05-hold-system", {})
    assert not step.holds()
    step.apply()
    assert KERNEL in k80.run("apt-mark showhold").split()
    k80.run("sudo apt-get -y upgrade && sudo apt-get -y dist-upgrade")
    assert k80.run(f"dpkg-query -W -f '${{Version}}' {KERNEL}") == "1.0"
    kept = k80.run("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "0";' in kept
    assert 'Unattended-Upgrade::Package-Blacklist:: "nvidia-";' in kept
    k80.run(f"sudo apt-mark unhold {KERNEL}")
    assert not step.holds()
    step.apply()


def test_variables_reach_every_login_and_a_users_own_stay(k80: Client) -> None:
    k80.run("echo 'MINE=1' | sudo tee -a /etc/environment")
    before = k80.run("cat /etc/environment")
    env = dict(load_stack("cuda12-torch").env)
    lines = "\n".join([*(f"{name}={value}" for name, value in env.items()), "OMP_NUM_THREADS={cpus}"])
    Step(k80, "32-environment", {"ENVIRONMENT": "OLD=1"}).apply()
    Step(k80, "32-environment", {"ENVIRONMENT": lines}).apply()
    after = k80.run("cat /etc/environment")
    assert after.startswith(before)
    assert "OLD" not in after
    assert k80.run("stat -c '%a %U' /etc/environment") == "644 root"
    seen = k80.run("sudo su - ubuntu -c env").splitlines()  # a login, as PAM makes it
    assert f"OMP_NUM_THREADS={k80.run('nproc')}" in seen
    assert {"MINE=1", *(f"{name}={value}" for name, value in env.items())} <= set(seen)
    assert {"NCCL_DEBUG", "TF_FORCE_GPU_ALLOW_GROWTH"} <= set(env)


def test_each_gpu_is_tuned_and_one_that_cannot_is_left_as_it_is(k80: Client) -> None:
    put(k80, "/usr/local/bin/nvidia-smi", SMI)
    tuning = {"PERSISTENCE": "on", "AUTO_BOOST": "off", "CLOCKS": "2505,875"}
    step = Step(k80, "40-gpu-tuning", tuning)
    assert not step.holds()
    done = step.run("apply")
    assert done
    assert done.stderr.decode().strip() == "application clocks: not supported by GPU 1, left as it is"
    asked = k80.run("cat /tmp/asked").splitlines()
    assert asked == [
        *(f"-i {gpu} -pm 1" for gpu in range(3)),
        *(f"-i {gpu} --auto-boost-default=0" for gpu in range(3)),
        *(f"-i {gpu} -ac 2505,875" for gpu in (0, 2)),
    ]
    step.apply()
    assert k80.run("cat /tmp/asked").splitlines() == asked  # the second time: nothing
    k80.run("sudo rm /run/cloudrun-gpu-tuning")  # as after a reboot
    assert not step.holds()


def test_after_a_reboot_the_gpus_are_tuned_without_anyone(k80: Client) -> None:
    put(k80, "/usr/local/bin/nvidia-smi", SMI)
    step = Step(k80, "40-gpu-tuning", {"PERSISTENCE": "on", "CLOCKS": "2505,875"})
    step.apply()
    asked = k80.run("cat /tmp/asked; sudo rm /tmp/asked")
    assert k80.run("ls /var/lib/cloud/scripts/per-boot") > "cloudrun.sh"  # the guard's comes first
    k80.machine.power_off()
    k80.machine.boot()
    wait_for(step.holds)
    assert k80.run("cat /tmp/asked") == asked
    k80.run("echo '# of before' | sudo tee -a /var/lib/cloud/scripts/per-boot/cloudrun_gpu_tuning.sh")
    assert not step.holds()
    step.apply()


def test_no_values_of_a_stack_become_shell_text_of_the_next_boot(k80: Client) -> None:
    put(k80, "/usr/local/bin/nvidia-smi", SMI)
    step = Step(k80, "40-gpu-tuning", {"CLOCKS": "1;id"})
    assert "no values for a GPU" in step.run("apply").stderr.decode()
    assert not k80.run("ls /var/lib/cloud/scripts/per-boot")


def test_clocks_that_a_gpu_refuses_fail_with_its_words(k80: Client) -> None:
    put(k80, "/usr/local/bin/nvidia-smi", SMI)
    step = Step(k80, "40-gpu-tuning", {"CLOCKS": "1,1"})
    done = step.run("apply")
    assert not done
    assert "application clocks of GPU 0: Specified clock combination" in done.stderr.decode()
    assert not step.holds()


def test_without_a_gpu_there_is_nothing_to_tune(rehearsal: Rehearsal) -> None:
    Step(rehearsal.boot(), "40-gpu-tuning", {"PERSISTENCE": "on", "CLOCKS": "2505,875"}).apply()


def test_the_old_key_is_trusted_no_more_and_others_stay(k80: Client, packages: PackageServer) -> None:
    """In apt's own keyring, in a file of its folder, and in one that is text."""
    old, old_key = packages.fingerprint, key_of(packages)
    packages.rotate_key()
    kept, kept_key = packages.fingerprint, key_of(packages)
    packages.rotate_key()
    both = (old_key + kept_key).encode()
    for file in ("trusted.gpg", "trusted.gpg.d/cuda.gpg"):
        k80.shell().run(f"sudo gpg --batch --yes --dearmor -o /etc/apt/{file}", input=both)
    put(k80, "/etc/apt/trusted.gpg.d/nvidia.asc", old_key)
    where = packages.environment()["CLOUDRUN_NVIDIA_REPOSITORY_URL"]
    given = {"REPOSITORIES": "nvidia-cuda", "STACK_OS": "ubuntu-16.04", "NVIDIA_REPOSITORY_URL": where}
    assert trusted(k80) == {old, kept}
    step = Step(k80, "12-nvidia-repository", given | {"OLD_FINGERPRINT": old})
    assert not step.holds()
    step.apply()
    assert trusted(k80) == {kept}
    assert old not in k80.run("sudo apt-key list 2>/dev/null").replace(" ", "")
    assert k80.run("sudo apt-get update -o APT::Update::Error-Mode=any")
    assert not k80.shell().run("pgrep gpg-agent", check=False)


def key_of(packages: PackageServer) -> str:
    return packages.respond(f"/ubuntu/{packages.fingerprint[-8:].lower()}.pub", "")[1].decode()


def trusted(client: Client) -> set[str]:
    show = "gpg --batch --with-colons --with-fingerprint --show-keys"
    files = "/etc/apt/trusted.gpg $(find /etc/apt/trusted.gpg.d -name 'cuda*' -o -name 'nvidia*')"
    text = client.run(f"for file in {files}; do {show} $file 2>/dev/null; done", check=False)
    return {line.split(":")[9] for line in text.splitlines() if line.startswith("fpr:")}


def test_asking_a_machine_that_is_ready_takes_less_than_two_seconds(
    k80: Client, packages: PackageServer
) -> None:
    """Of the processor, whatever else this computer does: nine steps, in one command."""
    make_ready(k80, packages)
    where = packages.environment()["CLOUDRUN_NVIDIA_REPOSITORY_URL"]
    steps = steps_of(STACK, replace(k80.settings, nvidia_repository_url=where, frameworks=AS_FOUND))
    script = check_script(steps, [name for name, _ in PINS])
    told, _, spent = k80.shell().run("sh -c 'sh -s; times'", input=script).text.rstrip().rpartition("\n")
    assert read_checks(told).failing(steps) == []
    assert sum(float(each.partition("m")[2].rstrip("s")) for each in spent.split()) < 2
