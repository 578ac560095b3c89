#!/bin/sh
# The login user's ~/.theanorc, with the stack's keys set and everything else as the user has it.
# Usage: THEANORC="global.device=gpu" 30-theanorc.sh check|apply     One section.key=value a line.
set -eu

fail() { echo "$*" >&2; exit 1; }

settle() { # check or apply
    python3 - "$1" "$THEANORC" <<'PYTHON'
import os, sys

path = os.path.expanduser("~/.theanorc")
wanted = [word.split("=", 1) for word in sys.argv[2].splitlines()]
try:
    with open(path) as stream:
        before = stream.read()
except IOError:
    before = ""
sections, order, current = {"": []}, [""], ""
for line in before.splitlines():  # what the user wrote stays as it is, comments too
    bare = line.strip()
    if bare.startswith("[") and bare.endswith("]"):
        current = bare[1:-1].strip()
        if current not in sections:
            order.append(current)
            sections[current] = []
    else:
        sections[current].append(line)
for name, value in wanted:
    section, key = name.split(".", 1)
    if section not in sections:
        order.append(section)
        sections[section] = []
    lines = sections[section]
    new = "%s = %s" % (key, value)
    places = [
        index for index, line in enumerate(lines)
        if not line.lstrip().startswith(("#", ";")) and line.replace(":", "=").split("=")[0].strip() == key
    ]
    if places:
        lines[places[0]] = new
        for index in reversed(places[1:]):
            del lines[index]
    else:
        while lines and not lines[-1].strip():
            lines.pop()
        lines.append(new)
blocks = []
for section in order:
    text = ("[%s]\n" % section if section else "") + "\n".join(sections[section]).strip("\n")
    if text:
        blocks.append(text)
after = "\n\n".join(blocks) + "\n"
if after == before:
    sys.exit(0)
if sys.argv[1] == "check":
    sys.exit(1)
with open(path + ".new", "w") as stream:
    stream.write(after)
os.rename(path + ".new", path)
PYTHON
}

[ -n "${THEANORC:-}" ] || exit 0
case ${1:-} in
    check | apply) settle "$1" ;;
    *) fail "usage: 30-theanorc.sh check|apply" ;;
esac
