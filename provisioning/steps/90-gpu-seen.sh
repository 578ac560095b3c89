#!/bin/sh
# The driver answers, and the framework sees the GPU: or a job would train on the CPU for a night.
# Usage: SEEN_BY=torch 90-gpu-seen.sh check|apply     SEEN_BY: torch, tensorflow, chainer, theano or empty.
# It repairs nothing: apply only says what is wrong.
set -eu

fail() { echo "$*" >&2; exit 1; }

seen() { # by the framework
    python3 - "$1" <<'PYTHON'
import sys

name = sys.argv[1]
try:
    if name == "torch":
        import torch
        there = torch.cuda.is_available()
    elif name == "tensorflow":
        from tensorflow.python.client import device_lib
        there = any(each.device_type == "GPU" for each in device_lib.list_local_devices())
    elif name == "chainer":
        import chainer
        there = chainer.cuda.available
    elif name == "theano":
        import theano
        there = theano.config.device != "cpu"
    else:
        there = True
except Exception as error:
    sys.exit("%s does not start: %s" % (name, error))
if not there:
    sys.exit("the driver answers, but %s sees no GPU" % name)
PYTHON
}

check() {
    command -v nvidia-smi >/dev/null || fail "no GPU is seen: nvidia-smi is missing, so is the driver"
    said=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>&1) || fail "no GPU is seen: nvidia-smi says: $said"
    [ -n "$said" ] || fail "no GPU is seen: nvidia-smi lists none"
    [ -z "${SEEN_BY:-}" ] || seen "$SEEN_BY"
}

case ${1:-} in
    check | apply) check ;;
    *) fail "usage: 90-gpu-seen.sh check|apply" ;;
esac
