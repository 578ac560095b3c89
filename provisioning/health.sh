#!/bin/sh
# What a machine says of its health, a fact a line: WORD REST. It changes nothing, and a fact that cannot be had
# is left out. cloudrun/health_look.py sends it behind the checks of the steps, and reads what it says.
# Usage: health.sh     Root, where it is to be had, sees how full other users' folders are.
set -u

FULL_PERCENT=90 # from here on it is told what fills the disk
SMI_TIMEOUT_S=20 # nvidia-smi starts the driver of each GPU where persistence is off: a second a GPU
DU_TIMEOUT_S=20

one_line() { tr '\n' ' ' | cut -c 1-400; }

as_root() {
    if sudo -n true 2>/dev/null; then sudo -n "$@"; else "$@"; fi
}

# Code and words of nvidia-smi; 127 where it is missing, 124 where it does not come back.
gpu() {
    if ! command -v nvidia-smi >/dev/null; then
        echo "smi 127"
        return
    fi
    said=$(timeout "$SMI_TIMEOUT_S" nvidia-smi -L 2>&1)
    echo "smi $? $(echo "$said" | one_line)"
}

packages() {
    command -v apt-mark >/dev/null || return 0
    echo "held $(apt-mark showhold | one_line)"
    echo "unattended $(apt-config dump APT::Periodic::Unattended-Upgrade | sed -n 's/.* "\(.*\)";/\1/p')"
    grep -ls '^ *APT::Periodic::Unattended-Upgrade *"[^0]' /etc/apt/apt.conf.d/* | sed 's/^/upgraded-by /'
}

# Size, free bytes, percent and mount point of the disks that a run writes to.
disks() { df -P -k / "$HOME" 2>/dev/null | awk 'NR > 1 && !seen[$6]++ { print "disk", $2, $4, $5 + 0, $6 }'; }

# The biggest folders of the places where things grow, in KiB. A folder that is not there is passed over.
folders() {
    for place in "$HOME" /var /tmp /opt /mnt /data /root; do
        [ ! -d "$place" ] || as_root timeout "$DU_TIMEOUT_S" du -x -k -d 3 "$place" </dev/null 2>/dev/null
    done | sort -rn | head -n 40 | sed 's/^/folder /'
}

gpu </dev/null
packages </dev/null
disks
if disks | awk -v full="$FULL_PERCENT" '$4 > full { found = 1 } END { exit !found }'; then folders; fi
