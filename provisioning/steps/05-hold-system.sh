#!/bin/sh
# Keep kernel and driver as they are: no unattended upgrade takes them, no upgrade by hand moves the kernel.
# Usage: 05-hold-system.sh check|apply     Needs root. Waits for an apt that is at work.
set -eu

CONF=/etc/apt/apt.conf.d/52cloudrun-hold
LOCK_TIMEOUT_S=600 # a cloud's image begins its first upgrades by itself, and may take minutes

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

conf() {
    cat <<'CONF'
APT::Periodic::Unattended-Upgrade "0";
Unattended-Upgrade::Package-Blacklist {
    "nvidia-";
    "libnvidia-";
    "cuda";
    "libcudnn";
    "linux-";
};
CONF
}

# Installed packages of the kernel, those that pull in the next one too.
kernel_packages() {
    dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 'linux-image*' 'linux-headers*' 'linux-modules*' \
        linux-aws linux-azure linux-generic linux-virtual 2>/dev/null | sed -n 's/^.i  *//p' || true
}

check() {
    [ "$(cat "$CONF" 2>/dev/null)" = "$(conf)" ] || return 1
    held=" $(apt-mark showhold | tr '\n' ' ') "
    for package in $(kernel_packages); do
        case $held in *" $package "*) ;; *) return 1 ;; esac
    done
}

await_apt() {
    command -v fuser >/dev/null || return 0
    waited=0
    while as_root fuser /var/lib/dpkg/lock /var/lib/apt/lists/lock >/dev/null 2>&1; do
        [ "$waited" -lt "$LOCK_TIMEOUT_S" ] || fail "apt has been at work for $LOCK_TIMEOUT_S s"
        sleep 1
        waited=$((waited + 1))
    done
}

apply() {
    as_root mkdir -p "$(dirname "$CONF")"
    conf | as_root tee "$CONF.new" >/dev/null
    as_root mv "$CONF.new" "$CONF"
    await_apt
    packages=$(kernel_packages)
    # shellcheck disable=SC2086 # one word a package
    [ -z "$packages" ] || as_root apt-mark hold $packages >/dev/null
}

command -v apt-get >/dev/null || fail "this system has no apt-get"
case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    *) fail "usage: 05-hold-system.sh check|apply" ;;
esac
