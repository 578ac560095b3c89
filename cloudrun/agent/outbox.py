"""A run's outputs put into a bucket when it has ended and no client comes for them, one file beside the agent:
standard library, Python 3.5 syntax. Pushed on first use.

    runs/<key>/outbox       where to: addresses that were signed ahead; 0600, and gone when it is done
    runs/<key>/outbox.lock  held by the watcher, a process that waits for the run's end; the agent leaves another
                            when the machine starts again
    runs/<key>/outbox.log   what it did; no address stands there

What goes is a tar stream cut into parts of one size, then a letter (JSON): how the run ended, every file and
every part with size and sha256. Without the letter nothing was sent.
"""

import base64
import hashlib
import http.client
import importlib
import json
import os
import signal
import ssl
import stat
import sys
import tarfile
import time
from urllib.parse import urlsplit

VERSION = 1
POLL_S = 0.5  # one small file is read
PATIENT = 8  # times the wait, for a client that is connected
HURRY_S = 600.0  # before the guard's deadline: what a limit leaves between a run's end and its machine's
NEVER_STARTED_S = 3600.0
TRIES = 6
RETRY_S = 1.0  # before the second try; it doubles
TIMEOUT_S = 60.0  # of silence
PASSING = (408, 429)  # and all from 500: another try may do
TAR_SLACK = 64 * 1024  # of a tar: head and padding of a file with the longest names, and the end
REVIVE_S = 1.0


class Refused(Exception):
    """The bucket does not take it; no address stands in the message."""


class Fetched(Exception):
    """A client has the outputs, or took the run away: nothing is wanted any more."""


def main(argv):
    agent, verb = importlib.import_module(argv[0]), argv[1]
    os.umask(0o077)
    return agent.serve(lambda: {"leave": leave, "drop": drop}[verb](agent, agent.read_request()))


def leave(agent, request):
    """Keep the addresses, the newest ones alone, and see that a watcher lives. Safe to repeat."""
    key = agent.check_key(request["key"])
    names = ("parts", "letter", "part_bytes", "headers", "wait_s", "authority", "ends_at")
    os.makedirs(agent.run_dir(key), exist_ok=True)
    box = dict((name, request[name]) for name in names)
    agent.save_json(path_of(agent, key), dict(box, part=os.path.abspath(__file__)))
    wake(agent, key)
    agent.reply({})


def wake(agent, key):
    """See that a watcher lives. The agent calls this, too, when the machine has started: with no client there it
    knows home's clock by the guard alone."""
    if agent.CLOCK.home is None:
        agent.CLOCK.set_home(home_now(agent))
    lock = os.open(path_of(agent, key) + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    if agent.try_lock(lock):
        agent.detach(lambda: keep_watch(agent, key), path_of(agent, key) + ".log", lock)
    os.close(lock)


def drop(agent, request):
    """A client has all: the addresses go, and with them the watcher. Idempotent."""
    agent.forget(path_of(agent, agent.check_key(request["key"])))
    agent.reply({})


def path_of(agent, key):
    return os.path.join(agent.run_dir(key), "outbox")


# --- the watcher ---------------------------------------------------------------------------------


def keep_watch(agent, key):
    """One process waits for the end of another, and puts a new one in the place of one that was killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pid = os.fork()
        if not pid:
            work(agent, key)
        if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
            return
        say("the watcher was killed: once more from the start")
        time.sleep(REVIVE_S)


def work(agent, key):
    """Wait, then send, then leave no address behind."""
    try:
        if wait_for_end(agent, key):
            send(agent, key, agent.load_json(path_of(agent, key)))
            agent.forget(path_of(agent, key))
            say("sent")
    except Fetched:
        say("not wanted any more")
    except Refused as error:
        say("given up: %s%s" % (error, ending(agent, key)))
        agent.forget(path_of(agent, key))
    except (OSError, ValueError, KeyError, TypeError) as error:  # an address may stand in the error's own words
        say("given up: %s %s" % (type(error).__name__, getattr(error, "errno", "")))
        agent.forget(path_of(agent, key))
    finally:
        os._exit(0)


def ending(agent, key):
    """What there is to say of addresses that do not live any more."""
    ends_at = (agent.load_json(path_of(agent, key)) or {}).get("ends_at")
    if ends_at is None or ends_at > home_now(agent):
        return ""
    return "; the addresses lived until %s" % stamp(ends_at)


def home_now(agent):
    record = agent.load_guard()
    return agent.home_time(record) if record else time.time()


def wait_for_end(agent, key):
    """Until the run has ended and no client came for what it left; False where nothing is to be sent."""
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))  # the machine goes down: now or never
    begun_at, ended_at = agent.CLOCK.now(), None
    while os.path.exists(path_of(agent, key)):
        now, state = agent.CLOCK.now(), agent.load_state(key)
        if state["state"] == "absent" and now - begun_at > NEVER_STARTED_S:
            agent.forget(path_of(agent, key))
        if state["state"] == "ended":
            ended_at = now if ended_at is None else ended_at
            wait_s = agent.load_json(path_of(agent, key))["wait_s"]
            if told or is_urgent(agent, state, wait_s) or not may_come(agent, now - ended_at, wait_s):
                return True
        time.sleep(POLL_S)
    return False


def may_come(agent, waited_s, wait_s):
    """Whether a client may still be on its way, or is fetching."""
    if waited_s < wait_s:
        return True
    return waited_s < PATIENT * wait_s and agent.has_connection((agent.load_guard() or {}).get("address"))


def is_urgent(agent, state, wait_s):
    """Whether the machine goes soon: taken by its provider, or ended by its guard."""
    if state.get("reason") in ("preempted", "deadline") or agent.is_held({}):
        return True
    record = agent.load_guard()
    deadline = record["policy"].get("deadline_at") if record and not record["policy"].get("keep") else None
    return deadline is not None and deadline - agent.home_time(record) < wait_s + HURRY_S


def stay_awake(agent):
    """The guard counts idle time anew, as if it had just been armed: the machine is not idle."""
    record = agent.load_guard()
    if record:
        agent.save_json(agent.path_of("guard.json"), dict(record, armed=agent.CLOCK.stamp()))


def say(text):
    sys.stderr.write("%s %s\n" % (stamp(time.time()), text))


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


# --- sending -------------------------------------------------------------------------------------


def send(agent, key, box):
    """The outputs and the log as parts, then the letter. Raises Refused, Fetched."""
    if box is None:
        raise Fetched()
    sent = Parts(agent, key, box)
    letter = pack(agent, key, sent)
    status = agent.status_of(key)
    letter.update(version=VERSION, key=key, status=status, parts=sent.finish(), part_bytes=box["part_bytes"])
    put(box, box["letter"], json.dumps(letter).encode("ascii"))


def pack(agent, key, sent):
    """Write the tar: the log, then the checkpoint, then the outputs from the smallest to the largest, as far as
    there is room. Returns what is in there: `log` (size, sha256) and `files` as in the agent's manifest."""
    spec = agent.load_json(os.path.join(agent.run_dir(key), "spec.json"))
    root = agent.outputs_dir(key)
    first = agent.to_bytes((spec["resume"] or "checkpoint") + "/")
    found = sorted((not path.startswith(first), size_of(entry), path, entry) for path, entry in agent.walk(root, b""))
    letter = {"files": [], "skipped": [], "log": None}
    with tarfile.open(fileobj=sent, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
        head = add_file(tar, sent, os.path.join(agent.run_dir(key), "log"), "log")
        letter["log"] = head and [head[0], head[2]]
        for _, _, path, entry in found:
            name, row = agent.from_bytes(path), None
            if entry.is_symlink():
                row = add_link(tar, sent, "outputs/" + name, agent.from_bytes(os.readlink(entry.path)))
            elif entry.is_file(follow_symlinks=False):
                row = add_file(tar, sent, entry.path, "outputs/" + name)
            if row:
                letter["files"].append([name] + row)
            else:
                letter["skipped"].append(name)
    return letter


def size_of(entry):
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def add_file(tar, sent, path, name):
    """[size, mode, sha256, ""] of what went; None for what cannot be read, has no room, or shrank meanwhile."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        facts = os.fstat(file)
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = facts.st_size, stat.S_IMODE(facts.st_mode), int(facts.st_mtime)
        if not sent.has_room(info.size):
            return None
        content = Content(file)
        tar.addfile(info, content)
        return None if content.is_short else [info.size, info.mode, content.digest.hexdigest(), ""]
    finally:
        os.close(file)


def add_link(tar, sent, name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    if not sent.has_room(0):
        return None
    tar.addfile(info)
    return [0, 0o777, "", target]


class Content:
    """A file's bytes, hashed as they are read; zeros where it has become shorter than it was."""

    def __init__(self, file):
        self.file, self.digest, self.is_short = file, hashlib.sha256(), False

    def read(self, size):
        pieces, left = [], size
        while left:
            piece = os.read(self.file, left)
            if not piece:
                self.is_short = True
                piece = b"\0" * left
            self.digest.update(piece)
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


class Parts:
    """A file to write to: what comes is sent part by part."""

    def __init__(self, agent, key, box):
        self.agent, self.key, self.box = agent, key, box
        self.held, self.sizes, self.done = [], 0, []

    def has_room(self, size):
        full = len(self.box["parts"]) * self.box["part_bytes"]
        return len(self.done) * self.box["part_bytes"] + self.sizes + size + TAR_SLACK <= full

    def write(self, data):
        self.held.append(data)
        self.sizes += len(data)
        while self.sizes >= self.box["part_bytes"]:
            whole = b"".join(self.held)
            self.held, self.sizes = [whole[self.box["part_bytes"] :]], self.sizes - self.box["part_bytes"]
            self.send(whole[: self.box["part_bytes"]])
        return len(data)

    def finish(self):
        """[size, sha256] of every part."""
        if self.sizes:
            self.send(b"".join(self.held))
        return self.done

    def send(self, part):
        if not os.path.exists(path_of(self.agent, self.key)):
            raise Fetched()
        stay_awake(self.agent)
        put(self.box, self.box["parts"][len(self.done)], part)
        self.done.append([len(part), hashlib.sha256(part).hexdigest()])


def put(box, address, body):
    """Store one object; what arrives there changed is refused, and sent again. Neither a proxy nor a redirect is
    asked. Raises Refused."""
    headers = dict(box["headers"])
    headers["Content-MD5"] = base64.b64encode(hashlib.md5(body).digest()).decode("ascii")
    for attempt in range(TRIES):
        try:
            status = ask(box, urlsplit(address), body, headers)
            if 200 <= status < 300:
                return
            said = "status %d" % status
            if status < 500 and status not in PASSING and attempt:
                break  # once more at first: a digest that is wrong is a 400, too
        except (OSError, http.client.HTTPException) as error:
            said = type(error).__name__
        if attempt < TRIES - 1:
            say("%s; trying again" % said)
            time.sleep(RETRY_S * 2 ** attempt)
    raise Refused(said)


def ask(box, place, body, headers):
    if place.scheme == "https":
        context = ssl.create_default_context()
        if box["authority"]:
            context.load_verify_locations(cadata=box["authority"])
        line = http.client.HTTPSConnection(place.hostname, place.port or 443, timeout=TIMEOUT_S, context=context)
    else:
        line = http.client.HTTPConnection(place.hostname, place.port or 80, timeout=TIMEOUT_S)
    try:
        line.request("PUT", "%s?%s" % (place.path, place.query), body, headers)
        return line.getresponse().status
    finally:
        line.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
