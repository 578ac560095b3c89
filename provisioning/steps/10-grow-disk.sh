#!/bin/sh
# Let the partition and the file system of / take in all of a disk that was made bigger, while it is in use.
# Usage: 10-grow-disk.sh check|apply     check ends with 0 when there is nothing to grow.
# Knows ext2/3/4, xfs and btrfs on a partition, a whole disk or an LVM volume, and an overlay above one of
# them. Refuses what it does not know. Needs growpart (cloud-guest-utils), which cloud images carry.
set -eu

SLACK_MIB=64 # ends of partitions are rounded, and file systems keep tables outside their own size

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# The mount point whose file system holds what is written to /: below an overlay, that of its upper folder.
find_mount() {
    kind=$(findmnt --noheadings --output FSTYPE --target / | tail -n 1)
    if [ "$kind" != overlay ]; then
        echo /
        return
    fi
    upper=$(findmnt --noheadings --output OPTIONS --target / | tr ',' '\n' | sed -n 's/^upperdir=//p')
    [ -n "$upper" ] || fail "/ is an overlay without an upper folder"
    findmnt --noheadings --output TARGET --target "$upper" | tail -n 1
}

size_mib() { echo $(($(as_root blockdev --getsize64 "$1") / 1048576)); }

# The block device below a partition: its disk; nothing for a device that is no partition.
disk_of() {
    name=$(basename "$(readlink -f "$1")")
    [ -e "/sys/class/block/$name/partition" ] || return 0
    basename "$(readlink -f "/sys/class/block/$name/..")"
}

grow_partition() { # device
    disk=$(disk_of "$1")
    [ -n "$disk" ] || return 0
    number=$(cat "/sys/class/block/$(basename "$(readlink -f "$1")")/partition")
    command -v growpart >/dev/null || fail "growpart is missing (package cloud-guest-utils)"
    as_root growpart "/dev/$disk" "$number" >/dev/null || [ $? -eq 1 ] || fail "growpart could not grow /dev/$disk $number"
}

grow_volume() { # logical volume: its physical volume first
    physical=$(as_root pvs --noheadings -o pv_name --select "vg_name=$(as_root lvs --noheadings -o vg_name "$1" | tr -d ' ')" | tr -d ' ')
    [ "$(echo "$physical" | wc -l)" -eq 1 ] || fail "$1 lies on several disks: grow it by hand"
    grow_partition "$physical"
    as_root pvresize -q "$physical" >/dev/null
    as_root lvextend -q -l +100%FREE "$1" >/dev/null 2>&1 || true # nothing left to take is no fault
}

grow_file_system() { # device, kind, mount point
    case $2 in
        ext2 | ext3 | ext4) as_root resize2fs "$1" >/dev/null 2>&1 || fail "resize2fs could not grow $1" ;;
        xfs) as_root xfs_growfs "$3" >/dev/null || fail "xfs_growfs could not grow $3" ;;
        btrfs) as_root btrfs filesystem resize max "$3" >/dev/null || fail "btrfs could not grow $3" ;;
        *) fail "a file system of kind $2 is not known to this step" ;;
    esac
}

check() {
    whole=$device
    disk=$(disk_of "$device")
    [ -z "$disk" ] || whole=/dev/$disk
    has=$(df --block-size=1M --output=size "$mount" | tail -n 1 | tr -d ' ')
    # ext4 shows itself without its tables (about 2 %)
    [ $((has + has / 40 + SLACK_MIB)) -ge "$(size_mib "$whole")" ]
}

mount=$(find_mount)
device=$(findmnt --noheadings --output SOURCE --target "$mount" | tail -n 1 | sed 's/\[.*//')
kind=$(findmnt --noheadings --output FSTYPE --target "$mount" | tail -n 1)
[ -b "$device" ] || fail "/ lies on $device ($kind), which is no disk"

case ${1:-} in
    check) check ;;
    apply)
        case $device in
            /dev/mapper/* | /dev/dm-*) grow_volume "$device" ;;
            *) grow_partition "$device" ;;
        esac
        grow_file_system "$device" "$kind" "$mount"
        ;;
    *) fail "usage: 10-grow-disk.sh check|apply" ;;
esac
