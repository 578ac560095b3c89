#!/bin/sh
# Put the emoji into the tests' cache folder and print that folder's name, as fetch_mnist.sh does with MNIST.
# Usage: fetch_emoji.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/cloudrun-tests
set -eu
exec "$(dirname "$0")/../../jobs/transfer_learning/fetch_emoji.sh" \
    "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cloudrun-tests}"
