#!/bin/sh
# Put the emoji of two makers (1,911 pictures each, 64x64 PNG) into FOLDER/emoji and print FOLDER.
# Usage: fetch_emoji.sh FOLDER
# They come with npm's packages emoji-datasource-google (Noto, Apache-2.0) and emoji-datasource-twitter
# (Twemoji, CC-BY 4.0); they are never committed. Does nothing when they are there. 3: cannot be had here.
set -eu

folder=$1
version=16.0.0
google_sha256=fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438
twitter_sha256=f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877

if ! [ -e "$folder/emoji/emoji.json" ]; then
    command -v npm >/dev/null || { echo "npm is not installed" >&2; exit 3; }
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/fetching.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    for maker in google twitter; do
        package=emoji-datasource-$maker
        npm pack --silent --pack-destination "$work" "$package@$version" >/dev/null \
            || { echo "npm cannot fetch $package" >&2; exit 3; }
        case $maker in google) sum=$google_sha256 ;; *) sum=$twitter_sha256 ;; esac
        echo "$sum  $work/$package-$version.tgz" | sha256sum --check --status \
            || { echo "$package is not the pinned one" >&2; exit 1; }
        tar xzf "$work/$package-$version.tgz" -C "$work" package/emoji.json "package/img/$maker/64"
        mkdir -p "$work/emoji"
        mv "$work/package/img/$maker/64" "$work/emoji/$maker"
        mv "$work/package/emoji.json" "$work/emoji/emoji.json"
    done
    rm -rf "$folder/emoji"
    mv "$work/emoji" "$folder/emoji"
fi
echo "$folder"
