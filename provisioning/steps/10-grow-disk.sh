#!/bin/sh
# Let the partition and the file system of / take in all of a disk that was made bigger, while it is in use.
# Usage: 10-grow-disk.sh check|apply     check ends with 0 when there is nothing to grow.
# Knows ext2/3/4, xfs and btrfs on a partition, a whole disk or an LVM volume of one disk, and an overlay above
# one of them. What it does not know it refuses before it changes anything. Needs growpart
# (cloud-guest-utils), which cloud images carry. A kill at any point: the next apply goes on from there.
set -eu

SLACK=131072 # 64 MiB in sectors of 512 bytes: partitions end at round numbers, file systems with whole groups
BLOCK=/sys/class/block

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

need() { # program, package; root's programs too
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || fail "$1 is missing (package $2)"
}

# The mount point whose file system holds what is written to /: below an overlay, that of its upper folder.
find_mount() {
    if [ "$(findmnt --noheadings --output FSTYPE --target / | tail -n 1)" != overlay ]; then
        echo /
        return
    fi
    upper=$(findmnt --noheadings --output OPTIONS --target / | tr ',' '\n' | sed -n 's/^upperdir=//p')
    [ -n "$upper" ] || fail "/ is an overlay without an upper folder"
    findmnt --noheadings --output TARGET --target "$upper" | tail -n 1
}

# What the kernel calls a device, by its numbers: dm-0 for /dev/mapper/vg-root.
name_of() {
    numbers=$(stat -L -c '%t %T' "$1")
    basename "$(readlink -f "/sys/dev/block/$((0x${numbers% *})):$((0x${numbers#* }))")"
}

sectors() { cat "$BLOCK/$1/size"; }

is_more() { # sectors, than sectors
    case $1:$2 in :* | *: | *[!0-9:]*) fail "a size of $device cannot be read" ;; esac
    [ "$1" -gt $(($2 + SLACK)) ]
}

# --- the partition: nothing of it for a file system or a physical volume on a whole disk ----

# Sets disk, number, end, and what comes next: another partition's first sector, or the disk's end.
look_at_partition() { # device
    part=$(name_of "$1") disk=
    [ -e "$BLOCK/$part/partition" ] || return 0
    disk=$(basename "$(readlink -f "$BLOCK/$part/..")")
    number=$(cat "$BLOCK/$part/partition")
    end=$(($(cat "$BLOCK/$part/start") + $(sectors "$part")))
    whole=$(sectors "$disk") next=$whole used=$end last=$part
    for folder in "$BLOCK/$disk/$disk"*; do
        begins=$(cat "$folder/start" 2>/dev/null) || continue
        ends=$((begins + $(cat "$folder/size")))
        [ "$begins" -lt "$end" ] || [ "$begins" -ge "$next" ] || next=$begins
        if [ "$ends" -gt "$used" ]; then used=$ends last=$(basename "$folder"); fi
    done
}

partition_is_full() {
    look_at_partition "$1"
    [ -z "$disk" ] || { ! is_more "$next" "$end" && ! is_more "$whole" "$used"; }
}

grow_partition() {
    look_at_partition "$1"
    [ -n "$disk" ] || return 0
    if is_more "$next" "$end"; then
        need growpart cloud-guest-utils
        said=$(as_root growpart "/dev/$disk" "$number" 2>&1) || fail "growpart on /dev/$disk $number: $said"
    elif is_more "$whole" "$used"; then
        fail "partition $number of /dev/$disk is not its last: the room behind $last cannot be given to it"
    fi
}

# --- the logical volume ----

look_at_volume() { # sets group, physical
    need lvs lvm2
    group=$(as_root lvs --noheadings -o vg_name "$device" 2>/dev/null | tr -d ' ') || group=
    [ -n "$group" ] || fail "$device is no LVM volume, and this step knows no other kind of mapping"
    physical=$(as_root pvs --noheadings -o pv_name --select "vg_name=$group" | tr -d ' ')
    [ "$(echo "$physical" | wc -l)" -eq 1 ] || fail "$device lies on several disks: grow it by hand"
}

lvm_sectors() { as_root "$1" --noheadings --nosuffix --units s -o "$2" "$3" | tr -d ' '; }

volume_is_full() {
    partition_is_full "$physical" &&
        ! is_more "$(sectors "$(name_of "$physical")")" "$(lvm_sectors pvs pv_size "$physical")" &&
        ! is_more "$(lvm_sectors vgs vg_free "$group")" 0
}

grow_volume() {
    grow_partition "$physical"
    as_root pvresize -q "$physical" >/dev/null
    [ "$(lvm_sectors vgs vg_free "$group")" -eq 0 ] || as_root lvextend -q -l +100%FREE "$device" >/dev/null
}

# --- the file system ----

in_sectors() { # count and size of blocks, in words or lines
    xargs | awk 'NF == 2 { printf "%.0f\n", $1 * $2 / 512 }'
}

file_system_sectors() {
    case $kind in
        ext2 | ext3 | ext4)
            need dumpe2fs e2fsprogs
            as_root dumpe2fs -h "$device" 2>/dev/null | sed -n 's/^Block count: *//p; s/^Block size: *//p' | in_sectors
            ;;
        xfs)
            need xfs_info xfsprogs
            as_root xfs_info "$mount" | sed -n 's/^data .*bsize=\([0-9]*\) *blocks=\([0-9]*\),.*/\1 \2/p' |
                in_sectors
            ;;
        btrfs)
            need btrfs btrfs-progs
            sizes=$(as_root btrfs filesystem show --raw "$mount" | sed -n 's/.*devid .* size \([0-9]*\) .*/\1/p')
            [ "$(echo "$sizes" | wc -l)" -eq 1 ] || fail "$mount lies on several disks: grow it by hand"
            echo $((sizes / 512))
            ;;
        *) fail "a file system of kind $kind is not known to this step: ext2, ext3, ext4, xfs and btrfs are" ;;
    esac
}

grow_file_system() {
    case $kind in
        ext*) said=$(as_root resize2fs "$device" 2>&1) || fail "resize2fs could not grow $device: $said" ;;
        xfs) said=$(as_root xfs_growfs "$mount" 2>&1) || fail "xfs_growfs could not grow $mount: $said" ;;
        btrfs) said=$(as_root btrfs filesystem resize max "$mount" 2>&1) || fail "btrfs could not grow $mount: $said" ;;
    esac
}

# --- all of them ----

is_volume() { case $(name_of "$device") in dm-*) ;; *) false ;; esac }

check() {
    if is_volume; then volume_is_full; else partition_is_full "$device"; fi || return 1
    ! is_more "$(sectors "$(name_of "$device")")" "$has"
}

apply() {
    if is_volume; then grow_volume; else grow_partition "$device"; fi
    grow_file_system
}

mount=$(find_mount)
device=$(findmnt --noheadings --output SOURCE --target "$mount" | tail -n 1 | sed 's/\[.*//')
kind=$(findmnt --noheadings --output FSTYPE --target "$mount" | tail -n 1)
[ -b "$device" ] || fail "/ lies on $device ($kind), which is no disk"
has=$(file_system_sectors)
! is_volume || look_at_volume

case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    *) fail "usage: 10-grow-disk.sh check|apply" ;;
esac
