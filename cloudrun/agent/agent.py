"""The part of cloudrun that runs on a machine: one file, standard library, Python 3.5 syntax.

The client pushes this file by its hash and calls one verb per SSH command. A verb reads
one request from stdin (length, zlib, JSON), answers in frames on stdout and ends. What
must outlive the connection runs detached: one *runner* for each run, one *guard* for the
machine. Everything lives below ~/.cloudrun:

    objects/ab/<sha256>     content, verified on arrival; <sha256>.part is an upload cut short
    bundles/<digest>.json   the manifest of a bundle whose content is all there
    queue/<number>.<key>    the order in which runs were started
    runs/<key>/             spec.json state.json stop.json env(0600, until started)
                            runner (locked while a runner lives) pid exit log code/ hashes.json
                            again/ (what a run that was interrupted resumes from)
    guard.json guard.lock   the policy with which the machine ends itself, and who watches it
    notice.json             the provider takes the machine: nothing starts any more

A killed runner loses nothing: the job writes its own log, a tiny shell around it writes its
exit code, and the next verb (or the guard) starts another runner, which watches on.

A run that resumes survives the machine's end too, where its disk stays: interrupted by a
notice to stop or by a machine that went down under it, it is queued again, and the verb
`boot` (or any other) starts it from its own checkpoint.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import select
import signal
import stat
import struct
import sys
import time
import zlib

HOME = os.path.expanduser("~")
BASE = os.path.join(HOME, ".cloudrun")
VERSION = os.path.basename(__file__)

MAGIC = b"\0cloudrun agent 1\n"  # separates our frames from whatever a login script prints
FRAME = struct.Struct("!cI")  # kind, length of the payload
OFFSET = struct.Struct("!Q")
CHUNK = struct.Struct("!I")
BLOCK = 256 * 1024  # one read or write of bulk data
SMALL = 1024 * 1024  # contents up to here are handled in one piece
HEARTBEAT_S = 5.0  # a third of the silence that the client takes for death
TIME_TO_BE_TOLD_S = 600.0  # home waits for a machine that starts no longer than 15 minutes
LOOK_S = 0.5  # how often follow looks at metrics and at the runner
NOTICE_POLL_S = 2.0  # a notice must be with the job within 5 s
NOTICE_GRACE_S = 5.0  # at least, between SIGTERM and SIGKILL, however late the notice was seen
NOTICE_VOID_S = 60.0  # a machine that is still there so long after the announced time was not taken
METADATA_TIMEOUT_S = 1.0
SHUTDOWN_S = 120.0  # systemd gives processes 90 s between SIGTERM and the end
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
SHELLS = ("sh", "dash", "bash", "ash", "busybox", "ksh", "zsh")


class Failure(Exception):
    """Something to tell the client: kind is for programs, the message for people."""

    def __init__(self, kind, message):
        Exception.__init__(self, message)
        self.kind = kind


# --- verbs -------------------------------------------------------------------------------


def main(argv):
    """Run one verb and exit 0."""
    global DEFAULT_UMASK
    DEFAULT_UMASK = os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the end of stdin tells us, with nothing lost
    verbs = {
        "receive": receive,
        "start": start,
        "follow": follow,
        "signal": stop,
        "status": show_status,
        "list": show_list,
        "spec": show_spec,
        "manifest": manifest,
        "send": send,
        "guard": guard,
        "probe": probe,
    }
    if not argv or argv[0] not in verbs and argv[:2] != ["boot", "--policy"]:
        sys.stderr.write("usage: agent.py %s|boot --policy FILE\n" % "|".join(sorted(verbs)))
        return 2
    if argv[0] in ("boot", "guard") and argv[1:2] == ["--policy"]:
        (boot if argv[0] == "boot" else arm)(load_json(argv[2]), None)  # the boot payload's: nobody listens
        return 0
    return serve(lambda: (revive_guard(), verbs[argv[0]](*argv[1:])))


def serve(act):
    """Let `act` answer home, and exit 0: failures travel as a frame, so that exit codes stay the shell's own."""
    os.makedirs(BASE, exist_ok=True)
    try:
        write_all(1, MAGIC)
        act()
    except Failure as failure:
        send_failure(failure.kind, str(failure))
    except BrokenPipeError:
        pass  # the client has gone: nobody to tell
    except OSError as error:
        send_failure("disk-full" if error.errno in FULL else "system", str(error))
    except (KeyError, TypeError, ValueError) as error:
        send_failure("request", "%s: %s" % (type(error).__name__, error))
    return 0


def send_frame(kind, payload=b""):
    write_all(1, FRAME.pack(kind, len(payload)) + payload)


def reply(value):
    send_frame(b"Z", zlib.compress(json.dumps(value).encode("ascii"), 1))


def send_failure(kind, message):
    try:
        send_frame(b"E", json.dumps({"kind": kind, "message": message}).encode("ascii"))
        while STDIN.read(BLOCK):
            pass  # let a client that is still sending come to the end and read the answer
    except OSError:
        pass


def read_request():
    """The next request. Its `now` is home's clock, to which all times that we report are corrected."""
    head = STDIN.read(CHUNK.size)
    if len(head) < CHUNK.size:
        raise BrokenPipeError()
    body = STDIN.read(CHUNK.unpack(head)[0])
    request = json.loads(zlib.decompress(body).decode("ascii"))
    CLOCK.set_home(request["now"])
    return request


# --- receive: content by hash ------------------------------------------------------------


def receive(digest, key="", name=""):
    """Take a bundle: say what is missing and from where, then read just that, as one stream.

    With key and name the files are also laid out in runs/<key>/<name>.
    """
    if not re.match(r"[0-9a-f]{64}\Z", digest):
        raise Failure("request", "not a digest: %r" % digest)
    record = path_of("bundles", digest + ".json")
    bundle = load_json(record)
    reply({"have": bundle is not None})
    if bundle is None:
        bundle = read_request()["files"]
        check_files(bundle)
        lock = lock_objects()
        suffix = ".part" if lock is not None else ".%d.part" % os.getpid()
        wanted = find_missing(bundle, suffix)
        reply({"missing": [[index, offset] for index, sha, size, offset in wanted]})
        for index, sha, size, offset in wanted:
            take(sha, size, offset, object_path(sha), suffix)
        os.makedirs(path_of("bundles"), exist_ok=True)
        save_json(record, bundle)
    target = ""
    if key:
        target = os.path.join(run_dir(key), check_key(name))
        os.makedirs(run_dir(key), exist_ok=True)
        lay_out(bundle, target, digest)
    reply({"path": target})


def check_files(files):
    for path, size, mode, sha, link in files:
        if not is_safe(path) or not (link or re.match(r"[0-9a-f]{64}\Z", sha)) or size < 0:
            raise Failure("request", "unusable entry in the manifest: %r" % path)


def lock_objects():
    """The right to use .part files; None after 3 s: then somebody else is receiving, and we keep our own."""
    os.makedirs(path_of("objects"), exist_ok=True)
    lock = os.open(path_of("objects", "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(150):  # a receiver whose connection was just cut is still writing down its last bytes
        if try_lock(lock):
            return lock
        time.sleep(0.02)
    return None


def find_missing(files, suffix):
    """(index, sha, size, offset) of every content that is not here whole; each content once."""
    seen, missing = set(), []
    for index, (_, size, _, sha, link) in enumerate(files):
        if link or sha in seen:
            continue
        seen.add(sha)
        if file_size(object_path(sha)) != size:
            there = file_size(object_path(sha) + suffix)
            missing.append((index, sha, size, there if 0 < there <= size else 0))
    return missing


def take(sha, size, offset, path, suffix):
    """Read one content from stdin into its place, verified. What came before a cut stays as .part."""
    part = path + suffix
    if not offset and size <= SMALL:
        take_small(sha, size, path, part)
        return
    digest = hashlib.sha256()
    with open_object(part, os.O_RDWR if offset else os.O_RDWR | os.O_TRUNC) as file:
        left = offset
        while left:
            block = file.read(min(BLOCK, left))
            digest.update(block)
            left -= len(block)
        left = size - offset
        while left:
            block = STDIN.read1(min(BLOCK, left))
            if not block:
                raise BrokenPipeError()
            write_all(file.fileno(), block)
            digest.update(block)
            left -= len(block)
    settle(digest.hexdigest(), sha, part, path)


def take_small(sha, size, path, part):
    data = STDIN.read(size)
    with open_object(part, os.O_RDWR | os.O_TRUNC) as file:
        write_all(file.fileno(), data)
    if len(data) < size:
        raise BrokenPipeError()
    settle(hashlib.sha256(data).hexdigest(), sha, part, path)


def settle(actual, expected, part, path):
    if actual != expected:
        os.unlink(part)
        raise Failure("transfer", "content %s arrived wrong (as %s)" % (expected[:12], actual[:12]))
    os.rename(part, path)


def open_object(path, flags):
    for _ in range(2):
        try:
            return os.fdopen(os.open(path, flags | os.O_CREAT, 0o600), "r+b", 0)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
    raise Failure("system", "cannot make " + path)


def lay_out(files, target, digest):
    """Copy a bundle's files to a folder, which appears whole or not at all. Hashes are checked again:
    a machine that lost power may have lost what it had not yet written."""
    if os.path.isdir(target):
        return
    root = os.fsencode(target + ".new")
    remove_tree(root)
    os.makedirs(root)
    made, links = set([b""]), []
    for path, _, mode, sha, link in files:
        name = to_bytes(path)
        parent = os.path.dirname(name)
        if parent not in made:
            os.makedirs(os.path.join(root, parent), exist_ok=True)
            made.add(parent)
        if link:
            links.append((name, to_bytes(link)))
        elif not copy_verified(object_path(sha), os.path.join(root, name), mode, sha):
            forget(object_path(sha), path_of("bundles", digest + ".json"))
            raise Failure("damaged", "the stored content of %s is damaged or gone: push the bundle again" % path)
    for name, link in links:
        if stays_inside(name, link):
            os.symlink(link, os.path.join(root, name))
    os.rename(root, os.fsencode(target))


def copy_verified(source, target, mode, sha):
    digest = hashlib.sha256()
    try:
        reader = os.open(source, os.O_RDONLY)
    except FileNotFoundError:
        return False
    writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode & 0o777 | 0o600)
    try:
        while True:
            block = os.read(reader, SMALL)
            if not block:
                return digest.hexdigest() == sha
            digest.update(block)
            write_all(writer, block)
    finally:
        os.close(reader)
        os.close(writer)


# --- start: the queue and the runner -----------------------------------------------------


def start():
    """Queue a run and leave a runner behind. A second call for the same key only answers its status."""
    request = read_request()
    key = check_key(request["key"])
    folder = run_dir(key)
    os.makedirs(folder, exist_ok=True)
    os.makedirs(path_of("queue"), exist_ok=True)
    lock = os.open(path_of("queue", "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if load_json(os.path.join(folder, "spec.json")) is None:
        enter_queue(key, folder, request)
    os.close(lock)
    revive(key)
    reply(status_of(key))


def enter_queue(key, folder, request):
    if not os.path.exists(path_of("bundles", request["bundle"] + ".json")):
        raise Failure("no-bundle", "the bundle %s is not on this machine" % request["bundle"][:12])
    if not all(map(is_safe, (request["outputs"], request["resume"] or "none"))) or not request["command"]:
        raise Failure("request", "no command, or an outputs folder outside the job's")
    numbers = [number for number, _ in queue_entries()]
    names = ("key", "bundle", "command", "outputs", "max_seconds", "grace_s", "resume_from", "labels")
    spec = dict((name, request[name]) for name in names)
    spec["resume"] = "" if request["secrets"] else request["resume"]  # secrets do not outlive the start
    spec["devices"] = choose_devices(request["gpus"])
    spec["umask"] = DEFAULT_UMASK
    save_json(os.path.join(folder, "env"), job_environment(spec, request["env"], folder))
    open(os.path.join(folder, "log"), "ab").close()
    save_json(os.path.join(folder, "state.json"), {"state": "queued", "queued": CLOCK.stamp()})
    open(path_of("queue", "%012d.%s" % (max(numbers + [0]) + 1, key)), "w").close()
    save_json(os.path.join(folder, "spec.json"), spec)


def choose_devices(wanted):
    """Which GPUs a run queues for: the least wanted ones; all of them when it does not say how many."""
    try:
        gpus = sorted(name[6:] for name in os.listdir("/dev") if re.match(r"nvidia\d+\Z", name))
    except OSError:
        gpus = []
    gpus = [str(index) for index in range(len(gpus))]  # as CUDA numbers what this machine can see
    if not 0 < wanted < len(gpus):
        return gpus or ["cpu"]
    load = dict((gpu, 0) for gpu in gpus)
    for _, key in queue_entries():
        for gpu in (load_json(os.path.join(run_dir(key), "spec.json")) or {}).get("devices", []):
            load[gpu] = load.get(gpu, 0) + 1
    return sorted(sorted(gpus, key=lambda gpu: (load[gpu], int(gpu)))[:wanted], key=int)


def job_environment(spec, extra, folder):
    """The machine's environment, then ours, then the job's. Stored 0600 until the process has it."""
    env = dict((k, v) for k, v in os.environ.items() if not k.startswith("SSH_"))
    env.setdefault("CLOUDRUN_DATA_DIR", path_of("data"))
    env.setdefault("PYTHONUNBUFFERED", "1")  # or a Python job's lines would reach the log in blocks
    env["CLOUDRUN_OUTPUT_DIR"] = os.path.join(folder, "code", spec["outputs"])
    if spec["resume_from"]:
        env["CLOUDRUN_RESUME_FROM"] = spec["resume_from"]
    if not any(device == "cpu" for device in spec["devices"]):
        env["CUDA_VISIBLE_DEVICES"] = ",".join(spec["devices"])
    env.update(extra)
    return env


def queue_entries():
    """(number, key) of the runs that have not ended, in order; entries of ended ones are swept away."""
    entries = []
    try:
        names = sorted(os.listdir(path_of("queue")))
    except FileNotFoundError:
        names = []
    for name in names:
        number, _, key = name.partition(".")
        if not number.isdigit():
            continue
        if load_state(key)["state"] in ("ended", "absent"):
            forget(path_of("queue", name))
        else:
            entries.append((int(number), key))
    return entries


def predecessors(key):
    """Runs that must end before this one may start: earlier in the queue and after the same GPUs."""
    devices = set((load_json(os.path.join(run_dir(key), "spec.json")) or {}).get("devices", []))
    earlier = []
    for _, other in queue_entries():
        if other == key:
            return earlier
        spec = load_json(os.path.join(run_dir(other), "spec.json")) or {}
        if devices & set(spec.get("devices", [])):
            earlier.append(other)
    return earlier


def revive(key):
    """Leave a runner behind for a run that has not ended, may go on and has none. True when it did."""
    state = load_state(key)
    if state["state"] in ("ended", "absent"):
        return False
    if state["state"] == "queued" and is_held(state) and not wanted_stop(run_dir(key), state):
        return False
    lock = os.open(os.path.join(run_dir(key), "runner"), os.O_RDWR | os.O_CREAT, 0o600)
    taken = try_lock(lock)
    if taken:
        detach(lambda: run(key, lock), os.path.join(run_dir(key), "agent.log"), lock)
    os.close(lock)
    return taken


def run(key, lock):
    """The runner of a run, until it has ended or must wait for the machine to come back."""
    os.ftruncate(lock, 0)
    os.write(lock, b"%d" % os.getpid())
    WAKE.listen()
    spec = load_json(os.path.join(run_dir(key), "spec.json"))
    while spec is not None and run_once(key, run_dir(key), spec):
        pass


def run_once(key, folder, spec):
    """Wait for the turn, start the job, watch it, write down how it ended. True: it starts again at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    state = load_state(key)
    if state["state"] == "ended":
        return False
    if state["state"] == "running" and not read_number(os.path.join(folder, "pid")):
        state["state"] = "queued"  # the last runner died on the very step from one to the other
    try:
        if state["state"] == "queued":
            lay_out(load_json(path_of("bundles", spec["bundle"] + ".json")) or [], folder + "/code", spec["bundle"])
            if not wait_turn(key, folder, state):
                request = wanted_stop(folder, state)
                if request:
                    finish(folder, state, None, request["reason"])
                return False
            launch(folder, spec, state)
    except (Failure, OSError) as error:
        full = getattr(error, "errno", None) in FULL
        message = "the machine's disk is full" if full else str(error)
        finish(folder, state, None, "cannot-start", message)
        return False
    if not spec.get("resume"):
        forget(os.path.join(folder, "env"))
    WAKE.outlive_sigterm()
    watch(folder, spec, state)
    end_stragglers(folder, state, min(spec["grace_s"], 5.0) if not state.get("reason") else spec["grace_s"])
    code = read_number(os.path.join(folder, "exit"))
    request = wanted_stop(folder, state)
    if not goes_on(folder, spec, state, code, request):
        finish(folder, state, code, state.get("reason") or (request["reason"] if request and code is None else ""))
        return False
    requeue(folder, state, request)
    return not is_held(state) or wanted_stop(folder, state)


def wait_turn(key, folder, state):
    """Sleep until all predecessors have ended; False when this run was stopped or held first.

    A runner holds a lock for life, so waiting for a shared one is waiting without polling. The
    lock falls too when a runner is killed: then its run is not over, and it gets a new runner.
    """

    def is_off():
        return is_held(state) or wanted_stop(folder, state)

    for other in predecessors(key):
        while load_state(other)["state"] not in ("ended", "absent"):
            try:
                if not WAKE.lock_shared(os.path.join(run_dir(other), "runner"), is_off):
                    return False
            except Poked:
                continue
            if load_state(other)["state"] != "ended" and not revive(other):
                time.sleep(0.05)
    return not is_off()


def wanted_stop(folder, state):
    """The newest request to stop, unless it is the one after which the run was queued again."""
    request = load_json(os.path.join(folder, "stop.json"))
    return request if request and request.get("at") != state.get("heeded", 0) else None


def is_held(state):
    """Nothing starts on a machine that its provider takes, or that is just shutting down."""
    notice, down = load_json(path_of("notice.json")), state.get("down")
    if notice and notice["boot"] == CLOCK.boot_id:
        return True
    return bool(down) and down[2] == CLOCK.boot_id and CLOCK.now() - down[1] < SHUTDOWN_S


def goes_on(folder, spec, state, code, request):
    """Whether a run whose job is gone is not over: it was interrupted from outside, and it resumes."""
    if not spec.get("resume") or code == 0 or not os.path.exists(os.path.join(folder, "env")):
        return False
    if request and request["reason"] != "preempted":
        if state.get("reason") == "preempted":
            state["reason"] = request["reason"]  # cancelled in its last moments
        return False
    if state.get("reason"):
        return state["reason"] == "preempted" and state.get("again", False)
    down = WAKE.sigterm_at is not None and CLOCK.now() - WAKE.sigterm_at < SHUTDOWN_S
    if down:
        state["down"] = CLOCK.stamp()
    cut = down or state.get("cut", False) or state["started"][2] != CLOCK.boot_id
    return cut and (code is None or code == 75 or code > 128)


def requeue(folder, state, request):
    """Back into the queue, of which it never left its place: the next start resumes."""
    files = [os.path.join(folder, name) for name in ("exit", "log", "state.json")]
    last_sign = max(os.stat(path).st_mtime for path in files if os.path.exists(path))
    state["used_s"] = state.get("used_s", 0.0) + max(0.0, last_sign - state["started"][0])
    for name in ("runner", "pid", "ticks", "started", "reason", "kill_at", "again", "cut", "told"):
        state.pop(name, None)
    state.update(state="queued", resumes=state.get("resumes", 0) + 1)
    state["heeded"] = request["at"] if request else state.get("heeded", 0)
    state["message"] = "interrupted: it goes on from its checkpoint when the machine is back"
    save_state(folder, state)


# $0 is the run's folder. The inner shell becomes the command, under a process id that is known;
# the outer one outlives it, and keeps its own remarks ("Terminated") out of the log. Both files exist
# already, so that a full disk cannot keep them empty.
# SIGTERM to all processes, as at a shutdown, does not end the outer one either.
WRAPPER = """exec 3>&2 2>/dev/null
trap : TERM
/bin/sh -c 'exec 2>&3 3>&-; echo $$ 1<>"$0/pid"; exec "$@"' "$0" "$@"
echo $? 1<>"$0/exit"
"""


def launch(folder, spec, state):
    """Start the command in a session of its own. It may only go on once its process id is on disk."""
    env = load_json(os.path.join(folder, "env"))
    code = os.path.join(folder, "code")
    if env is None:
        raise Failure("cannot-start", "the environment of the run is gone")
    if not find_command(spec["command"][0], env.get("PATH", os.defpath), code):
        raise Failure("cannot-start", "command not found on the machine: %s" % spec["command"][0])
    if state.get("resumes"):
        env["CLOUDRUN_RESUME_FROM"] = own_checkpoint(folder, spec) or env.get("CLOUDRUN_RESUME_FROM", "")
    os.makedirs(to_bytes(os.path.join(code, spec["outputs"])), exist_ok=True)
    if env["CLOUDRUN_DATA_DIR"] == path_of("data"):
        os.makedirs(path_of("data"), exist_ok=True)
    for name in ("pid", "exit"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b" " * 16)
    gate, opener = os.pipe()
    pid = os.fork()
    if not pid:
        become_job(folder, spec, env, gate, opener)
    os.close(gate)
    state.update(state="running", runner=os.getpid(), pid=pid, ticks=start_ticks(pid), started=CLOCK.stamp())
    state["message"] = ""
    state.pop("down", None)
    save_state(folder, state)
    os.write(opener, b"1")
    os.close(opener)
    if spec.get("resume") and not os.fork():
        os.sync()  # so that there is a run to resume if the machine loses its power now
        os._exit(0)


def own_checkpoint(folder, spec):
    """A copy of the checkpoint in the run's own outputs, by hard links: jobs replace such files as a whole.
    The copy before it where there is no new one, "" where there is none at all."""
    import shutil

    source = to_bytes(os.path.join(folder, "code", spec["outputs"], spec["resume"]))
    target = os.path.join(folder, "again")
    if os.path.isdir(source) and os.listdir(source):
        remove_tree(target + ".new")
        shutil.copytree(source, os.fsencode(target + ".new"), symlinks=True, copy_function=link_or_copy)
        remove_tree(target)
        os.rename(target + ".new", target)
    return target if os.path.isdir(target) else ""


def link_or_copy(source, target):
    import shutil

    try:
        os.link(source, target)
    except OSError:  # the outputs are on another disk
        shutil.copy2(source, target)


def become_job(folder, spec, env, gate, opener):
    try:
        os.setsid()
        os.close(opener)
        os.chdir(os.path.join(folder, "code"))
        log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        os.umask(spec["umask"])
        argv = [b"/bin/sh", b"-c", WRAPPER.encode("ascii"), os.fsencode(folder)]
        argv += [to_bytes(word) for word in spec["command"]]
        env = dict((to_bytes(name), to_bytes(value)) for name, value in env.items())
        if os.read(gate, 1) == b"1":  # nothing comes when the runner died before it wrote us down
            os.execve("/bin/sh", argv, env)
    finally:
        os._exit(126)


def watch(folder, spec, state):
    """Until the command has ended: its time limit, requests to stop, SIGTERM, then SIGKILL."""
    started = state["started"][1] if state["started"][2] == CLOCK.boot_id else CLOCK.now()
    started -= state.get("used_s", 0.0)  # before it was interrupted
    kill_at = state.get("kill_at")
    half_at = None if kill_at is None else (CLOCK.now() + kill_at) / 2.0
    while not command_ended(folder, state):
        if not os.path.isdir(folder):
            kill_session(state, signal.SIGKILL)  # the machine was wiped under us: nothing may run unaccounted
            sys.exit("the folder of the run is gone")
        now = CLOCK.now()
        request = wanted_stop(folder, state)
        if request is None and spec["max_seconds"] is not None and now >= started + spec["max_seconds"]:
            request = {"reason": "timed-out", "grace_s": spec["grace_s"]}
        if request and kill_at is None:
            kill_at = now + request["grace_s"]
            state.update(reason=request["reason"], kill_at=kill_at, again=request.get("again", False))
            if request.get("notice"):
                state["notice"] = request["notice"]
            save_state(folder, state)
            half_at = now + request["grace_s"] / 2.0
        if kill_at is not None and not state.get("told"):  # also by a runner whose forerunner came no further
            terminate(folder, state, shells=False)
            state["told"] = True
            save_state(folder, state)
        if request and now + request["grace_s"] < kill_at:
            kill_at = now + request["grace_s"]  # asked again, with less patience
        if half_at is not None and now >= half_at:
            terminate(folder, state, shells=True)
            half_at = None
        if kill_at is not None and now >= kill_at:
            kill_session(state, signal.SIGKILL)
        WAKE.wait(pause(now, started, spec["max_seconds"], half_at, kill_at))


def pause(now, started, max_seconds, half_at, kill_at):
    """Seconds until the next thing to do; at most a minute, for a select does not count a suspend."""
    times = [60.0]
    if kill_at is not None:
        times += [max(kill_at - now, 0.1)] + ([half_at - now] if half_at is not None else [])
    elif max_seconds is not None:
        times.append(started + max_seconds - now)
    if not WAKE.told_of_end:
        times.append(0.25)
    return max(0.0, min(times))


def command_ended(folder, state):
    """Has the shell around the command ended, or, if somebody killed that one, the command?"""
    WAKE.watch_process(state["pid"], state["ticks"])
    if is_alive(state["pid"], state["ticks"]):
        return False
    WAKE.told_of_end = False  # of the shell's end we were told; of the command's we shall not be
    if read_number(os.path.join(folder, "exit")) is not None:
        return True
    command = read_number(os.path.join(folder, "pid"))
    return command not in session_of(state)


def terminate(folder, state, shells):
    """SIGTERM to the command; where that is a shell, to what it runs, for shells do not pass it on.

    Not to every process: a data loader's workers killed under a job spoil the save that it is about to make.
    """
    session = session_of(state)
    command = read_number(os.path.join(folder, "pid"))
    targets = [command]
    for pid in targets:
        if session.get(pid, ("", 0))[0] in SHELLS:
            targets += [child for child, (_, parent) in session.items() if parent == pid]
    inner = [pid for pid in targets if session.get(pid, ("", 0))[0] not in SHELLS or catches_sigterm(pid)]
    for pid in targets if shells or not inner else inner:
        kill(pid, signal.SIGTERM)


def catches_sigterm(pid):
    """Whether a script has a trap of its own; the shells that have none would die under what they run."""
    try:
        with open("/proc/%d/status" % pid) as file:
            caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", file.read(), re.MULTILINE)
    except OSError:
        return False
    return caught is not None and bool(int(caught.group(1), 16) >> (signal.SIGTERM - 1) & 1)


def end_stragglers(folder, state, grace_s):
    """What the command left behind in its session ends with it, or it would keep the GPU."""
    until = CLOCK.now() + grace_s
    kill_session(state, signal.SIGTERM)
    while session_of(state):
        if CLOCK.now() >= until:
            kill_session(state, signal.SIGKILL)
        time.sleep(0.02)
        reap()


def kill_session(state, number):
    for pid in session_of(state):
        if pid != state["pid"]:  # the shell around the command stays, to write the exit code
            kill(pid, number)


def finish(folder, state, code, reason, message=""):
    if code is None and state["state"] == "running":
        code, reason = 137, reason or "killed"
        message = "the job and the shell around it were killed, or the machine restarted"
    elif not reason and code is not None and code > 128:
        message = "ended by signal %d%s" % (code - 128, " (often: out of memory)" if code == 137 else "")
        reason = "killed" if code == 137 else ""
    if reason == "preempted":
        reason = reason if code != 0 else ""  # it was done just in time
        message = "%(action)s, announced for %(time)s" % state["notice"] if "notice" in state else message
    forget(os.path.join(folder, "env"))
    state.update(state="ended", exit_code=code, reason=reason, message=message, ended=end_stamp(folder, state))
    save_state(folder, state)
    queue_entries()  # sweeps ours away


def end_stamp(folder, state):
    """Now; from a runner that came after the end, when the exit code was written."""
    path = os.path.join(folder, "exit")
    if state.get("runner") == os.getpid() or "started" not in state or read_number(path) is None:
        return CLOCK.stamp()
    longest = CLOCK.now() - state["started"][1] if state["started"][2] == CLOCK.boot_id else float("inf")
    ago = min(max(0.0, time.time() - os.stat(path).st_mtime), longest)
    return [time.time() - ago, CLOCK.now() - ago, CLOCK.boot_id]


# --- status, list, spec, signal ----------------------------------------------------------


def show_status():
    reply(settled_status(check_key(read_request()["key"])))


def show_list():
    read_request()
    try:
        keys = sorted(os.listdir(path_of("runs")))
    except FileNotFoundError:
        keys = []
    reply(dict((key, settled_status(key)) for key in keys if load_state(key)["state"] != "absent"))


def show_spec():
    key = check_key(read_request()["key"])
    spec = load_json(os.path.join(run_dir(key), "spec.json"))
    if spec is None:
        raise Failure("absent", "this machine knows no run %s" % key)
    reply(spec)


def stop():
    """Ask for SIGTERM, then SIGKILL after the grace period. Does not wait for a running job to end."""
    request = read_request()
    key = check_key(request["key"])
    if load_state(key)["state"] not in ("ended", "absent"):
        request_stop(key, request["reason"], request["grace_s"])
    for _ in range(50):  # a queued run, or a job that ends at once, is worth half a second
        state = load_state(key)["state"]
        if state in ("ended", "absent"):
            break
        if state == "queued":
            revive(key)  # its runner may have been just leaving, to wait for the machine's return
        time.sleep(0.01)
    reply(settled_status(key))


def request_stop(key, reason, grace_s, **more):
    request = dict(more, reason=reason, grace_s=grace_s, at=CLOCK.now())
    save_json(os.path.join(run_dir(key), "stop.json"), request)
    if not revive(key):
        kill(read_number(os.path.join(run_dir(key), "runner")), signal.SIGUSR1)


def settled_status(key):
    """The status; where a dead runner had to be replaced and the job is over, what the new one says."""
    if revive(key):
        for _ in range(100):
            state = load_state(key)
            if state["state"] != "running" or session_of(state):
                break
            time.sleep(0.01)
    return status_of(key)


def status_of(key):
    state = load_state(key)
    return {
        "state": state["state"],
        "exit_code": state.get("exit_code"),
        "reason": state.get("reason", "") if state["state"] == "ended" else "",
        "message": state.get("message", ""),
        "queue_position": len(predecessors(key)) if state["state"] == "queued" else 0,
        "log_bytes": max(0, file_size(os.path.join(run_dir(key), "log"))),
        "started_at": CLOCK.at_home(state.get("started")),
        "ended_at": CLOCK.at_home(state.get("ended")),
    }


# --- follow ------------------------------------------------------------------------------


def follow():
    """Frames until the run has ended and its last log byte was sent, or the client has gone."""
    request = read_request()
    key = check_key(request["key"])
    folder = run_dir(key)
    spec = load_json(os.path.join(folder, "spec.json"))
    if spec is None:
        send_frame(b"S", json.dumps(status_of(key)).encode("ascii"))
        return
    log = os.open(os.path.join(folder, "log"), os.O_RDONLY)
    if request["log_offset"] > os.fstat(log).st_size:
        raise Failure("request", "the log has %d bytes, not %d" % (os.fstat(log).st_size, request["log_offset"]))
    metrics = to_bytes(os.path.join(folder, "code", spec["outputs"], "metrics.jsonl"))
    changes = watch_folder(folder)
    offset, line_offset, sent_state, spoke, looked = request["log_offset"], request["metric_offset"], None, 0.0, 0.0
    while True:
        now = CLOCK.now()
        if now - looked >= LOOK_S:
            revive(key)
        status = status_of(key)
        ended = status["state"] == "ended"
        offset_before, offset = offset, send_log(log, offset)
        if ended or now - looked >= LOOK_S:
            line_offset, looked = send_metrics(metrics, line_offset), now
        if status["state"] != sent_state or ended:
            send_frame(b"S", json.dumps(status).encode("ascii"))
            sent_state, spoke = status["state"], now
        if ended:
            return
        if offset != offset_before:
            spoke = now
        if now - spoke >= HEARTBEAT_S:
            send_frame(b"H")
            spoke = now
        if client_gone(changes):
            return


def send_log(log, offset):
    while True:
        data = os.pread(log, BLOCK, offset)
        if not data:
            return offset
        send_frame(b"L", OFFSET.pack(offset) + data)
        offset += len(data)


def send_metrics(path, offset):
    """Send the complete lines from offset on; from the start when the file was written anew, shorter."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return offset
    try:
        offset = offset if offset <= os.fstat(file).st_size else 0
        data = os.pread(file, SMALL, offset)
        for line in data.splitlines(True):
            if line.endswith(b"\n"):
                offset += len(line)
                send_frame(b"M", OFFSET.pack(offset) + line)
        return offset + len(data) if len(data) == SMALL and b"\n" not in data else offset
    finally:
        os.close(file)


def watch_folder(folder):
    """An inotify descriptor that becomes readable when the log grows or the state changes; None without inotify."""
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        notify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        modified, moved_to = 0x2, 0x80  # IN_MODIFY, IN_MOVED_TO of <sys/inotify.h>
        if notify >= 0 and libc.inotify_add_watch(notify, os.fsencode(folder), modified | moved_to) >= 0:
            return notify
    except (ImportError, OSError, AttributeError):
        pass
    return None


def client_gone(changes):
    """Sleep until there may be something new. True at the end of stdin: the connection is closed."""
    ready = select.select([0] if changes is None else [0, changes], [], [], 0.01 if changes is None else LOOK_S)[0]
    if changes in ready:
        os.read(changes, BLOCK)
    return 0 in ready and not os.read(0, BLOCK)


# --- outputs: manifest and send ----------------------------------------------------------


def manifest():
    """Every file and symlink below outputs with its hash: [path, size, mode, sha256, link]."""
    request = read_request()
    root = outputs_dir(check_key(request["key"]))
    cache_path = os.path.join(run_dir(request["key"]), "hashes.json")
    old, new, files, skipped = load_json(cache_path) or {}, {}, [], []
    for path, entry in walk(root, to_bytes(request["prefix"])):
        name = from_bytes(path)
        try:
            if entry.is_symlink():
                files.append([name, 0, 0o777, "", from_bytes(os.readlink(entry.path))])
            elif entry.is_file(follow_symlinks=False):
                size, mode, sha, mark = hash_file(entry, old.get(name))
                files.append([name, size, mode, sha, ""])
                if mark:
                    new[name] = mark + [sha]
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError:
            skipped.append(name)
    if not request["prefix"] and new != old:
        try:
            save_json(cache_path, new)
        except OSError:
            pass  # a full disk must not keep the outputs from coming home
    reply({"files": files, "skipped": skipped})


def walk(root, prefix):
    """(path below root, entry) of everything that is not a folder and starts with prefix; follows no symlink."""
    pending = [b""]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(os.path.join(root, folder)))
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if entry.is_dir(follow_symlinks=False):
                inside = path + b"/"
                if inside.startswith(prefix) or prefix.startswith(inside):
                    pending.append(path)
            elif path.startswith(prefix):
                yield path, entry


def hash_file(entry, known):
    """(size, mode, sha256, mark): of exactly the bytes that were there on opening; a growing file has a whole prefix.

    The mark lets the next call skip a file that did not change; a file written in the last two seconds gets none.
    """
    before = entry.stat(follow_symlinks=False)
    mark = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
    mode = stat.S_IMODE(before.st_mode)
    if known and known[:4] == mark:
        return before.st_size, mode, known[4], mark
    file = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size, sha = hash_open(file, os.fstat(file).st_size)
    finally:
        os.close(file)
    fresh = size != before.st_size or abs(time.time() - before.st_mtime) < 2.0
    return size, mode, sha, None if fresh else mark


def hash_open(file, size):
    """(bytes read, sha256) of an open file's first size bytes."""
    digest, left = hashlib.sha256(), size
    while left:
        block = os.read(file, min(SMALL, left))
        if not block:
            break
        digest.update(block)
        left -= len(block)
    return size - left, digest.hexdigest()


def send():
    """Stream the wanted files: each as chunks (length, bytes) up to a length of 0.

    A size of -1 means the file as it is now: then the first chunk is [size, mode, sha256], read through the
    same descriptor, so that a file which is replaced all the time comes whole. No chunk at all: it is gone.
    """
    request = read_request()
    root = outputs_dir(check_key(request["key"]))
    buffer = []
    held = 0
    send_frame(b"D")
    for name, size, offset in request["wanted"]:
        for piece in file_pieces(os.path.join(root, to_bytes(name)), size, offset):
            buffer.append(piece)
            held += len(piece)
            if held >= BLOCK:
                write_all(1, b"".join(buffer))
                buffer, held = [], 0
    write_all(1, b"".join(buffer))


def file_pieces(path, size, offset):
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield CHUNK.pack(0)
        return
    try:
        if size < 0:
            size, sha = hash_open(file, os.fstat(file).st_size)
            head = json.dumps([size, stat.S_IMODE(os.fstat(file).st_mode), sha]).encode("ascii")
            yield CHUNK.pack(len(head)) + head
        os.lseek(file, offset, os.SEEK_SET)
        left = size - offset
        while left > 0:
            block = os.read(file, min(BLOCK, left))
            if not block:
                break
            left -= len(block)
            yield CHUNK.pack(len(block)) + block
        yield CHUNK.pack(0)
    finally:
        os.close(file)


def outputs_dir(key):
    spec = load_json(os.path.join(run_dir(key), "spec.json"))
    if spec is None:
        raise Failure("absent", "this machine knows no run %s" % key)
    return to_bytes(os.path.join(run_dir(key), "code", spec["outputs"]))


# --- guard: the machine ends itself ------------------------------------------------------


def guard():
    """Replace the policy and leave a guard behind."""
    request = read_request()
    arm(request["policy"], request["now"])
    reply({})


def boot(policy, _):
    """At every start of the machine, from its boot payload: the guard, and the runs that the last end cut, with
    what watches their outboxes.

    A policy that came over SSH since the payload was written is newer, and stays.
    """
    os.makedirs(BASE, exist_ok=True)
    forget(path_of("notice.json"))
    keys = sorted(os.listdir(path_of("runs"))) if os.path.isdir(path_of("runs")) else []
    each(keys, note_cut)  # before the guard, which leaves runners behind
    known = load_guard()
    if known and (known.get("payload") == policy or known["policy"]["issued_at"] > policy["issued_at"]):
        kept = with_time_to_be_told(known)
        save_json(path_of("guard.json"), dict(known, policy=kept, payload=policy, armed=CLOCK.stamp()))
        leave_guard()
    else:
        arm(policy, None)
    move_in()
    each(keys, revive)
    each(keys, watch_outbox)


def with_time_to_be_told(known):
    """The policy to go on with after a start. One whose deadline has passed would end the machine at once, also
    when its owner has just started it: home gets some minutes to set another."""
    policy, now = known["policy"], home_time(known)
    if policy.get("deadline_at") is None or policy["deadline_at"] > now:
        return policy
    return dict(policy, deadline_at=now + TIME_TO_BE_TOLD_S)


def each(keys, act):
    """One damaged run must not keep the others down, nor the guard."""
    for key in keys:
        try:
            act(key)
        except Exception as error:
            sys.stderr.write("%s: %r\n" % (key, error))


def move_in():
    """Put this file where a client looks for it, which then need not push it."""
    place = path_of(VERSION)
    if not os.path.exists(place):
        import shutil

        shutil.copyfile(__file__, place + ".new")
        os.rename(place + ".new", place)


def note_cut(key):
    """A run that was running, and of which nothing is alive at boot, was cut by the end of the machine."""
    lock = os.open(os.path.join(run_dir(key), "runner"), os.O_RDWR | os.O_CREAT, 0o600)
    if try_lock(lock):
        state = load_state(key)
        if state["state"] == "running" and not session_of(state):
            save_state(run_dir(key), dict(state, cut=True))
    os.close(lock)


def watch_outbox(key):
    """A run that may store what it leaves says which file beside this one waits for its end."""
    box = load_json(os.path.join(run_dir(key), "outbox"))
    if box:
        load_file(box["part"]).wake(sys.modules[__name__], key)


def load_file(path):
    import importlib.util

    spec = importlib.util.spec_from_file_location("part", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arm(policy, home_now):
    """Write the policy down with what home's clock said when it came, and start or tell the guard.

    A policy from the boot payload says only when it was issued. A machine's clock that is behind
    that, or more than ten minutes (a slow boot) ahead, is wrong: then it was issued just now.
    The same policy read again, after a restart, keeps the first reading. Who announces that the
    machine will be taken never changes, so a policy that does not say leaves that as it was.
    """
    os.makedirs(BASE, exist_ok=True)
    old = load_guard() or {}
    if not policy.get("notices") and old.get("policy", {}).get("notices"):
        policy = dict(policy, notices=old["policy"]["notices"])
    record = {"policy": policy, "armed": CLOCK.stamp(), "address": ssh_address(policy) or old.get("address")}
    record["payload"] = policy if home_now is None else old.get("payload")
    if home_now is None and old.get("policy") == policy:
        record["home"], record["stamp"] = old["home"], old["stamp"]
    else:
        late = time.time() - policy["issued_at"]
        record["home"] = home_now if home_now is not None else policy["issued_at"] + (late if 0 <= late < 600 else 0)
        record["stamp"] = CLOCK.stamp()
    save_json(path_of("guard.json"), record)
    leave_guard()


def load_guard():
    """The guard's record; None where there is none, or a machine that lost power has damaged it."""
    try:
        return load_json(path_of("guard.json"))
    except ValueError:
        return None


def revive_guard():
    """Replace a guard that was killed; one that went home had no policy left to keep.

    A guard armed by the boot payload did not know the address of the SSH server: now it shows.
    """
    record = load_guard()
    if record and not record["address"] and ssh_address({}):
        save_json(path_of("guard.json"), dict(record, address=ssh_address({})))
    if os.path.exists(path_of("guard.lock")):
        lock = os.open(path_of("guard.lock"), os.O_RDWR)
        if os.fstat(lock).st_size and try_lock(lock):
            detach(lambda: run_guard(lock), path_of("guard.log"), lock)
        os.close(lock)


def leave_guard():
    """See that one guard lives, of this agent's version, and that it has read the policy."""
    lock = os.open(path_of("guard.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    for attempt in range(250):
        if try_lock(lock):
            detach(lambda: run_guard(lock), path_of("guard.log"), lock)
            break
        pid, _, version = from_bytes(os.pread(lock, 200, 0)).partition(" ")
        if pid.isdigit() and version == VERSION:
            kill(int(pid), signal.SIGUSR1)
            break
        if pid.isdigit() and attempt % 50 == 0:
            kill(int(pid), signal.SIGTERM)  # an older agent's guard gives way
        time.sleep(0.02)
    os.close(lock)


def ssh_address(policy):
    """[address, port] that this machine's SSH server listens on, for counting connections."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    if len(words) == 4:
        return [words[2], int(words[3])]
    if policy.get("ssh_port"):
        return [policy.get("ssh_host", ""), policy["ssh_port"]]
    return None


def run_guard(lock):
    os.ftruncate(lock, 0)
    os.write(lock, to_bytes("%d %s" % (os.getpid(), VERSION)))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    WAKE.listen()
    active_at, look_at = CLOCK.now(), 0.0
    source, source_name = None, ""
    while True:
        record = load_json(path_of("guard.json"))
        policy = record["policy"]
        idle_s, deadline = policy.get("idle_s"), policy.get("deadline_at")
        if policy.get("keep"):
            idle_s = deadline = None
        if policy.get("notices", "") != source_name:
            source_name = policy.get("notices", "")
            source = find_source(source_name)
        if idle_s is None and deadline is None and source is None:
            os.ftruncate(lock, 0)
            return
        left = [15.0]
        if source is not None:
            heed(source, record.get("address"))
            left.append(NOTICE_POLL_S)
        now = CLOCK.now()
        if record["armed"][2] == CLOCK.boot_id:
            active_at = max(active_at, record["armed"][1])
        if deadline is not None:
            left.append(deadline - home_time(record))
        if idle_s is not None:
            if now >= look_at or now >= active_at + idle_s:
                active_at = now if is_busy(record.get("address")) else active_at
                look_at = now + min(15.0, max(0.1, idle_s / 10.0))
            left += [active_at + idle_s - now, max(0.1, look_at - now)]
        if min(left) > 0:
            WAKE.wait(min(left))
        elif end_machine(policy, "deadline" if deadline is not None and deadline <= home_time(record) else "idle"):
            os.ftruncate(lock, 0)
            return


def home_time(record):
    """Home's clock now, reckoned from its reading on arming; by our wall clock only across a restart."""
    wall, boot, boot_id = record["stamp"]
    passed = CLOCK.now() - boot if boot_id == CLOCK.boot_id else time.time() - wall
    return record["home"] + max(0.0, passed)


def is_busy(address):
    keys = [key for _, key in queue_entries()]
    for key in keys:
        revive(key)
    return bool(keys) or has_connection(address) or gpu_in_use()


def has_connection(address):
    """An established TCP connection to our SSH port. On loopback the address must match too: other
    `local` machines may listen on the same port."""
    host, port = address or ["", 22]
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        for row in rows:
            local, _, local_port = row[1].rpartition(":")
            if row[3] == "01" and int(local_port, 16) == port:  # 01: TCP_ESTABLISHED of <net/tcp_states.h>
                if not host.startswith("127.") or local[-8:] == loopback_hex(host):
                    return True
    return False


def loopback_hex(host):
    raw = bytes(bytearray(int(part) for part in host.split(".")))
    return "%08X" % struct.unpack("=I", raw)[0]


def gpu_in_use():
    if not os.path.exists("/dev/nvidia0"):
        return False
    return bool(run_text(["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]).strip())


def end_machine(policy, reason):
    """Stop every run, wait for them, then let the machine go. False when the policy was replaced meanwhile."""
    grace_s = 0.0
    for _, key in queue_entries():
        spec = load_json(os.path.join(run_dir(key), "spec.json")) or {}
        grace_s = max(grace_s, spec.get("grace_s", 30.0))
        request_stop(key, reason, spec.get("grace_s", 30.0))
    until = CLOCK.now() + grace_s + 10.0
    while queue_entries() and CLOCK.now() < until:
        WAKE.wait(0.1)
    import subprocess

    while True:
        if (load_json(path_of("guard.json")) or {}).get("policy") != policy:
            return False
        sys.stderr.write("%s: releasing the machine: %r\n" % (reason, policy.get("release")))
        try:
            if not policy.get("release") or subprocess.call(policy["release"], stdin=subprocess.DEVNULL) == 0:
                return True
        except OSError as error:
            sys.stderr.write("%s\n" % error)
        WAKE.wait(30.0)


# --- notices: the provider takes the machine ---------------------------------------------


def find_source(name):
    """What announces that the machine will be taken: one of ours, or class Notices of the file of that path."""
    try:
        if "/" not in name:
            return SOURCES[name]() if name in SOURCES else None
        return load_file(name).Notices()
    except (Exception, SystemExit) as error:
        sys.stderr.write("notices: %s: %r\n" % (name, error))


def heed(source, address):
    """Tell the runs of a notice, at most once each; let them go on when it is no longer there.

    When all have ended, the source may let the provider go ahead: at once where the disk stays, else when
    nobody is connected, for what is on it is still brought home in the time that is left.

    With the actions stop and hibernate the disk stays, so a run that resumes is queued for the
    machine's return, and one that was queued stays so. Whatever goes wrong here, the guard lives on.
    """
    try:
        notice = source.poll()
        old = load_json(path_of("notice.json"))
        if notice is None or notice["left_s"] < -NOTICE_VOID_S:
            if old:
                forget(path_of("notice.json"))
                for _, key in queue_entries():
                    revive(key)
            return
        told = {"action": notice["action"], "time": notice["time"]}
        if old != dict(told, boot=CLOCK.boot_id):
            save_json(path_of("notice.json"), dict(told, boot=CLOCK.boot_id))
            sys.stderr.write("notice: %(action)s at %(time)s\n" % told)
        stays = notice["action"] in ("stop", "hibernate")
        for _, key in queue_entries():
            state = load_state(key)
            if state.get("reason") or wanted_stop(run_dir(key), state) or (stays and state["state"] == "queued"):
                continue
            grace_s = max(notice["left_s"], NOTICE_GRACE_S)
            request_stop(key, "preempted", grace_s, again=stays, notice=told)
        if all(stays and load_state(key)["state"] == "queued" for _, key in queue_entries()):
            if stays or not has_connection(address):
                source.done()
    except Exception as error:
        if repr(error) != getattr(source, "complaint", ""):
            source.complaint = repr(error)
            sys.stderr.write("notices: %r\n" % error)


class AwsNotices:
    """Spot interruption notices by EC2's metadata service, version 2 (EC2 user guide, "Spot Instance interruption
    notices" and "Use IMDSv2", 2026-03): 404 until there is one, two minutes before the machine goes."""

    def __init__(self):
        from urllib.parse import urlsplit

        where = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        self.place = urlsplit(where)
        self.token = ""

    def poll(self):
        """{action, time, left_s}, None where nothing is announced. Raises whatever the service does wrong."""
        status, now, body = 401, 0.0, b""
        for _ in range(2):
            if not self.token:
                ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}  # the longest there is
                status, now, body = self.ask("PUT", "/latest/api/token", ttl)
                if status != 200:
                    raise Failure("metadata", "no token: status %d" % status)
                self.token = body.decode("ascii").strip()
            token = {"X-aws-ec2-metadata-token": self.token}
            status, now, body = self.ask("GET", "/latest/meta-data/spot/instance-action", token)
            if status != 401:
                break
            self.token = ""  # it has run out
        if status == 404:
            return None
        if status != 200:
            raise Failure("metadata", "status %d" % status)
        said = json.loads(body.decode("utf-8"))
        return {"action": str(said["action"]), "time": str(said["time"]), "left_s": utc(said["time"]) - now}

    def done(self):
        """Nothing to say: the machine goes at its time."""

    def ask(self, method, path, headers):
        """(status, the service's own clock, body). Neither a proxy nor a redirect is asked."""
        import http.client
        from email.utils import mktime_tz, parsedate_tz

        asked = http.client.HTTPConnection(self.place.hostname, self.place.port or 80, timeout=METADATA_TIMEOUT_S)
        try:
            asked.request(method, self.place.path.rstrip("/") + path, headers=headers)
            answer = asked.getresponse()
            date = parsedate_tz(answer.getheader("Date", ""))
            return answer.status, mktime_tz(date) if date else time.time(), answer.read(65536)
        finally:
            asked.close()


def utc(text):
    """Unix seconds of a time like 2017-09-18T08:22:00Z; fractions of a second are dropped."""
    import calendar

    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


SOURCES = {"aws": AwsNotices}


# --- probe -------------------------------------------------------------------------------


def probe():
    """What is really here, as text. `frameworks` are import or distribution names."""
    request = read_request()
    import platform

    disk = os.statvfs(BASE)
    facts = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu_count": str(os.cpu_count() or 0),
        "memory_bytes": str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "disk_free_bytes": str(disk.f_bavail * disk.f_frsize),
        "driver": "",
        "cuda": "",
        "gpu": "",
        "gpu_count": "0",
        "gpu_memory_mib": "",
    }
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    gpus = [line.split(", ") for line in run_text(query).splitlines() if line.count(", ") == 2]
    if gpus:
        facts.update(gpu=gpus[0][0], driver=gpus[0][1], gpu_memory_mib=gpus[0][2], gpu_count=str(len(gpus)))
        found = re.search(r"CUDA Version:\s*([\d.]+)", run_text(["nvidia-smi"]))
        facts["cuda"] = found.group(1) if found else ""
    for name in request["frameworks"]:
        facts[name] = framework_version(name)
    reply(facts)


def framework_version(name):
    try:
        from importlib import metadata  # novm

        return metadata.version(name)
    except Exception:  # Python below 3.8, or a distribution of another name: ask the module, in its own process
        program = "import %s as m, sys; sys.stdout.write(str(getattr(m, '__version__', '')))" % name
        return run_text([sys.executable, "-c", program]).strip() if re.match(r"\w+\Z", name) else ""


def run_text(argv):
    """A program's stdout, "" when it is not there, fails or takes more than 20 s."""
    import subprocess

    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


# --- names and paths ---------------------------------------------------------------------


def path_of(*parts):
    return os.path.join(BASE, *parts)


def run_dir(key):
    return os.path.join(BASE, "runs", key)


def object_path(sha):
    return os.path.join(BASE, "objects", sha[:2], sha)


def check_key(key):
    if not KEY.match(key):
        raise Failure("request", "not a key: %r" % key)
    return key


def is_safe(path):
    """Relative, and every part of it a plain name."""
    return "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def stays_inside(name, link):
    """A symlink may climb as far as its folder is deep, and only before it descends: then no
    other symlink can turn its way out of the tree."""
    parts = link.split(b"/")
    climbs = 0
    while climbs < len(parts) and parts[climbs] == b"..":
        climbs += 1
    return bool(link) and not link.startswith(b"/") and b".." not in parts[climbs:] and climbs <= name.count(b"/")


def to_bytes(name):
    """Names travel as text with surrogate escapes; on disk they are bytes, whatever the locale says."""
    return name.encode("utf-8", "surrogateescape")


def from_bytes(name):
    return name.decode("utf-8", "surrogateescape")


def find_command(name, path, folder):
    if "/" in name:
        return os.access(to_bytes(os.path.join(folder, name)), os.X_OK)
    return any(os.access(to_bytes(os.path.join(folder, place, name)), os.X_OK) for place in path.split(":"))


# --- files -------------------------------------------------------------------------------


def load_json(path):
    try:
        with open(path, "rb") as file:
            return json.loads(file.read().decode("ascii"))
    except FileNotFoundError:
        return None


def save_json(path, value):
    """Whole or not at all, for readers and for a crash of this process or of the machine."""
    temporary = "%s.%d" % (path, os.getpid())
    try:
        with open(temporary, "wb") as file:
            file.write(json.dumps(value).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError:
        forget(temporary)
        raise


def load_state(key):
    for _ in range(20):
        try:
            return load_json(os.path.join(run_dir(key), "state.json")) or {"state": "absent"}
        except ValueError:
            time.sleep(0.01)  # being overwritten in place, see save_state
    raise Failure("system", "the state of %s is damaged" % key)


def save_state(folder, state):
    """On a full disk the old file's own block is written over: how a job ended must not be lost."""
    path = os.path.join(folder, "state.json")
    try:
        save_json(path, state)
    except OSError as error:
        if error.errno not in FULL:
            raise
        with open(path, "r+b") as file:
            data = json.dumps(state).encode("ascii")
            file.write(data.ljust(os.fstat(file.fileno()).st_size))


def read_number(path):
    """The number on the first line of a file, None while that line is not there."""
    try:
        with open(path, "rb") as file:
            line = file.read(16)
    except FileNotFoundError:
        return None
    found = re.match(br"(\d+)(?:\n|\Z)", line)
    return int(found.group(1)) if found else None


def file_size(path):
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def forget(*paths):
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def remove_tree(path):
    import shutil

    if os.path.lexists(path):
        shutil.rmtree(path)


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def try_lock(fd):
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


# --- processes ---------------------------------------------------------------------------


def detach(work, log, keep):
    """Run work in a process that no session owns; of our files it has only `keep` and its log."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stderr = open(2, "w", 1, errors="backslashreplace")  # before Python 3.9 lines would wait in a buffer
        os.closerange(3, keep)
        os.closerange(keep + 1, 1024)
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(0)


class Poked(Exception):
    pass


class Wake:
    """How a detached process sleeps: until a child ends, somebody sends SIGUSR1, or time is over."""

    def __init__(self):
        self.raising = False
        self.told_of_end = False
        self.process = None
        self.sigterm_at = None

    def listen(self):
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGUSR1, self._poke)

    def _poke(self, *_):
        if self.raising:
            raise Poked()

    def outlive_sigterm(self):
        """The machine is being shut down: the job is told too, and somebody has to write down how it ends."""
        self.sigterm_at = None
        signal.signal(signal.SIGTERM, self._note_sigterm)

    def _note_sigterm(self, *_):
        self.sigterm_at = CLOCK.now()

    def watch_process(self, pid, ticks):
        """Be told of the end of a process: our child's by SIGCHLD, another's by pidfd where there is one."""
        if self.process is not None:
            return
        self.process = -1
        self.told_of_end = parent_of(pid) == os.getpid()
        pidfd_open = getattr(os, "pidfd_open", None)  # Python 3.9 and Linux 5.3; else we look four times a second
        if not self.told_of_end and pidfd_open and is_alive(pid, ticks):
            try:
                self.process = pidfd_open(pid)
                self.told_of_end = True
            except OSError:
                pass

    def wait(self, seconds):
        ready = [self.reader] + ([self.process] if self.process not in (None, -1) else [])
        if self.process in select.select(ready, [], [], seconds)[0]:
            self.told_of_end, self.process = False, -1
        try:
            os.read(self.reader, 4096)
        except BlockingIOError:
            pass
        reap()

    def lock_shared(self, path, unless):
        """Wait for a shared lock on path and let it go. False where unless() says so; Poked may come out."""
        lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
        try:
            self.raising = True
            if unless():
                return False
            fcntl.flock(lock, fcntl.LOCK_SH)
            return True
        finally:
            self.raising = False
            os.close(lock)


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def process_stat(pid):
    """(name, parent, session, start in clock ticks, state) from /proc/PID/stat, None when there is no such process."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            head, _, tail = file.read().rpartition(b")")
    except (OSError, TypeError):
        return None
    words = tail.split()
    return from_bytes(head.partition(b"(")[2]), int(words[1]), int(words[3]), int(words[19]), words[0]


def start_ticks(pid):
    found = process_stat(pid)
    return found[3] if found else 0


def parent_of(pid):
    found = process_stat(pid)
    return found[1] if found else 0


def is_alive(pid, ticks):
    """A process id alone may have been given to somebody else; with its start time it may not."""
    found = process_stat(pid)
    return found is not None and found[3] == ticks and found[4] != b"Z"


def session_of(state):
    """{pid: (name, parent)} of what lives in the job's session: its leader's pid, nothing older than it."""
    if state.get("started", [0, 0, ""])[2] != CLOCK.boot_id:
        return {}
    members = {}
    for name in os.listdir("/proc"):
        found = process_stat(int(name)) if name.isdigit() else None
        if found and found[2] == state["pid"] and found[3] >= state["ticks"] and found[4] != b"Z":
            members[int(name)] = found[:2]
    return members


def kill(pid, number):
    try:
        if pid:
            os.kill(pid, number)
    except ProcessLookupError:
        pass


# --- clocks ------------------------------------------------------------------------------


class Clock:
    """Time here and at home. now() counts seconds from the machine's start, suspended ones too: nobody sets it."""

    def __init__(self):
        self.home = None
        try:
            with open("/proc/sys/kernel/random/boot_id") as file:
                self.boot_id = file.read().strip()
        except OSError:
            self.boot_id = ""
        self.boot_id += ".%d" % start_ticks(1)  # a container keeps its host's id when it starts anew

    def now(self):
        try:
            return time.clock_gettime(7)  # CLOCK_BOOTTIME of <linux/time.h>; Python names it from 3.7 on
        except (OSError, AttributeError):
            return time.monotonic()

    def stamp(self):
        return [time.time(), self.now(), self.boot_id]

    def set_home(self, home_now):
        self.home = (home_now, time.time(), self.now())

    def at_home(self, stamp):
        """A stamp as home's clock would have shown it."""
        if stamp is None:
            return None
        home, wall, now = self.home
        return home - (now - stamp[1] if stamp[2] == self.boot_id else wall - stamp[0])


CLOCK = Clock()
WAKE = Wake()
DEFAULT_UMASK = 0o022
STDIN = os.fdopen(0, "rb", SMALL, closefd=False)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
