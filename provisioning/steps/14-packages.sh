#!/bin/sh
# Packages at exactly the versions that a stack pins, kept there through every later upgrade.
# Usage: PACKAGES="cuda-8-0=8.0.61-1 libcudnn5=5.1.10-1+cuda8.0" 14-packages.sh check|apply
# Needs root. A newer version that slipped in is taken back. Ends with 194 when the machine must start anew
# before what was installed is at work. Completed by the next apply after a kill at any point.
set -eu

PREFERENCES=/etc/apt/preferences.d/cloudrun
REBOOT_CODE=194
LOCK_TIMEOUT_S=600

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout="$LOCK_TIMEOUT_S" \
        -o Dpkg::Options::=--force-confold -o Acquire::Retries=3 "$@"
}

preferences() {
    for pin in $PACKAGES; do # above 1000: also where that is a step back
        printf 'Package: %s\nPin: version %s\nPin-Priority: 1001\n\n' "${pin%%=*}" "${pin#*=}"
    done
}

installed() { # are all there, whole, at their versions?
    for pin in $PACKAGES; do
        state=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "${pin%%=*}" 2>/dev/null) || return 1
        [ "$state" = "installed ${pin#*=}" ] || return 1
    done
}

held() {
    all=" $(apt-mark showhold | tr '\n' ' ') "
    for pin in $PACKAGES; do
        case $all in *" ${pin%%=*} "*) ;; *) return 1 ;; esac
    done
}

check() {
    [ "$(cat "$PREFERENCES" 2>/dev/null)" = "$(preferences)" ] && installed && held
}

names() {
    for pin in $PACKAGES; do echo "${pin%%=*}"; done
}

# DKMS builds the driver for a kernel whose headers are there.
headers() {
    case " $PACKAGES" in *" nvidia-"* | *" cuda-drivers"*) ;; *) return 0 ;; esac
    if apt-cache show "linux-headers-$(uname -r)" >/dev/null 2>&1; then echo "linux-headers-$(uname -r)"; fi
}

# A driver that is loaded stays until the machine starts anew.
needs_reboot() {
    [ ! -e /run/reboot-required ] || return 0
    loaded=$(sed -n 's/^NVRM version:.* \([0-9][0-9.]*[0-9]\)  .*/\1/p' /proc/driver/nvidia/version 2>/dev/null) || true
    [ -n "$loaded" ] || return 1
    for pin in $PACKAGES; do
        case ${pin%%=*} in
            nvidia-[0-9]* | nvidia-driver-*) case ${pin#*=} in "$loaded"*) return 1 ;; *) return 0 ;; esac ;;
        esac
    done
    return 1
}

# What a kill left in the middle is set up. After a cut connection the apt of before may still be at work.
settle() {
    waited=0
    until said=$(as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a --force-confold 2>&1); do
        case $said in *lock*) ;; *) fail "dpkg --configure -a: $said" ;; esac
        [ "$waited" -lt "$LOCK_TIMEOUT_S" ] || fail "dpkg has been at work for $LOCK_TIMEOUT_S s"
        sleep 1
        waited=$((waited + 1))
    done
}

apply() {
    as_root mkdir -p "$(dirname "$PREFERENCES")"
    preferences | as_root tee "$PREFERENCES.new" >/dev/null
    as_root mv "$PREFERENCES.new" "$PREFERENCES"
    if ! installed; then
        settle
        apt_get update
        # shellcheck disable=SC2046,SC2086 # one word a package
        apt_get install --allow-downgrades --allow-change-held-packages --no-install-recommends $PACKAGES $(headers)
    fi
    # shellcheck disable=SC2046 # one word a package
    as_root apt-mark hold $(names) >/dev/null
    installed || fail "apt-get has no fault to tell, but not all of $PACKAGES is there"
    ! needs_reboot || exit "$REBOOT_CODE"
}

[ -n "${PACKAGES:-}" ] || exit 0
command -v apt-get >/dev/null || fail "this system has no apt-get"
case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    *) fail "usage: 14-packages.sh check|apply" ;;
esac
