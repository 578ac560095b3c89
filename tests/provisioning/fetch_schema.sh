#!/bin/sh
# Put cloud-init's schema for cloud-config into the tests' cache folder and print its file name.
# Usage: fetch_schema.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/cloudrun-tests
# It comes out of Debian's package cloud-init, which is fetched by apt, so verified, and only unpacked: installed,
# it would do its work at the next start of this computer. Does nothing when it is there.
set -eu

cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cloudrun-tests}
schema=usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json
file=$cache/cloud-init/schema-cloud-config-v1.json

if [ ! -s "$file" ]; then
    command -v apt-get >/dev/null || { echo "this system has no apt-get to fetch cloud-init with" >&2; exit 3; }
    mkdir -p "$cache/cloud-init"
    work=$(mktemp -d "$cache/fetching.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    (cd "$work" && apt-get -q=2 download cloud-init >/dev/null 2>&1) || { echo "apt-get cannot fetch cloud-init" >&2; exit 3; }
    dpkg-deb --extract "$work"/cloud-init_*.deb "$work/package"
    [ -s "$work/package/$schema" ] || { echo "this cloud-init has no such schema" >&2; exit 3; }
    mv "$work/package/$schema" "$file"
fi
echo "$file"
