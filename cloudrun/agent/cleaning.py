"""What ended runs left on a machine, one file beside the agent: standard library, Python 3.5 syntax. Pushed on
first use.

Called with the name of the agent's module and a verb; it talks to home as the agent does.
"""

import importlib
import os


def main(argv):
    agent, verb = importlib.import_module(argv[0]), argv[1]
    return agent.serve(lambda: {"clean": clean}[verb](agent, agent.read_request()))


def clean(agent, request):
    """{key: [bytes, files]} of what lies here of these runs, or of what went with `remove`. A run that has not
    ended is not touched."""
    found = {}
    for key, keeps_checkpoint in request["runs"]:
        there = os.path.isdir(agent.run_dir(agent.check_key(key)))
        if there and agent.load_state(key)["state"] in ("ended", "absent"):
            counts = [
                clear(agent, os.fsencode(path), os.fsencode(kept), request["remove"])
                for path, kept in cleanable(agent, key, request["part"], keeps_checkpoint)
            ]
            found[key] = [sum(size for size, _ in counts), sum(files for _, files in counts)]
    agent.reply(dict((key, counts) for key, counts in found.items() if counts[1]))


def cleanable(agent, key, part, keeps_checkpoint):
    """[(path, what of it stays)] of a part of a run; part "" is all of it."""
    folder = agent.run_dir(key)
    code = os.path.join(folder, "code")
    spec = agent.load_json(os.path.join(folder, "spec.json"))
    if spec is None:
        return [] if part or keeps_checkpoint else [(folder, "")]
    outputs = os.path.join(code, spec["outputs"])
    checkpoint = os.path.join(outputs, spec["resume"] or "checkpoint")
    if keeps_checkpoint:
        return [(outputs, checkpoint)] if part in ("", "outputs") else []
    return {
        "": [(folder, "")],
        "outputs": [(outputs, "")],
        "checkpoints": [(checkpoint, ""), (os.path.join(folder, "again"), "")],
        "code": [(code, outputs)],
    }[part]


def clear(agent, path, kept, remove):
    """(bytes, files) at a path without what is kept below it; with remove they go, and what cannot go is not
    counted. Links are links. The state goes last: cut short, the next call knows the run."""
    if path == kept or not os.path.lexists(path):
        return 0, 0
    try:
        if os.path.islink(path) or not os.path.isdir(path):
            size = os.lstat(path).st_size
            if remove:
                agent.forget(path)
            return size, 1
        if remove:
            os.chmod(path, 0o700)  # the job may have made it read-only
        names = sorted(os.listdir(path), key=lambda name: (name == b"state.json", name))
    except OSError:
        return 0, 0  # somebody else's
    counts = [clear(agent, os.path.join(path, name), kept, remove) for name in names]
    try:
        if remove and not kept.startswith(path + b"/"):
            os.rmdir(path)
    except OSError:
        pass
    return sum(size for size, _ in counts), sum(files for _, files in counts)
