"""Data on a machine, one file beside the agent: standard library, Python 3.5 syntax. Pushed on first use.

    datasets/<digest>/      a dataset's files, which cannot be written; hard links to objects/
    datasets/<sha256>.part  a download cut short
    runs/<key>/data/        what a run finds in CLOUDRUN_DATA_DIR: links to its data and to the machine's own

Called with the name of the agent's module and a verb; it talks to home as the agent does.
"""

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib

BLOCK = 1024 * 1024
TRIES = 6  # of a download that is cut, each from where the last one ended
RETRY_S = 1.0  # before the second try; it doubles
TIMEOUT_S = 60.0  # of silence
TELL_S = 0.5  # how often progress is told
START_S = 3600.0  # so long after its data was laid out a run may still be about to start


def main(argv):
    agent, verb = importlib.import_module(argv[0]), argv[1]
    os.umask(0o077)
    return agent.serve(lambda: {"place": place, "fetch": fetch, "discard": discard}[verb](agent, agent.read_request()))


# --- place: what a run sees --------------------------------------------------------------


def place(agent, request):
    """Lay datasets out whose content is here, and make a run's folder of links to them. Safe to repeat."""
    for mount, digest in request["mounts"]:
        if not agent.is_safe(mount) or "/" in mount:
            raise agent.Failure("request", "not a place for data: %r" % mount)
        with held(agent, digest):
            lay_out(agent, digest)
    view = os.path.join(agent.run_dir(agent.check_key(request["key"])), "data")
    own = os.environ.get("CLOUDRUN_DATA_DIR") or agent.path_of("data")
    new = view + ".new"
    agent.remove_tree(new)
    os.makedirs(new)
    mounted = dict((mount, folder_of(agent, digest)) for mount, digest in request["mounts"])
    for name in os.listdir(own) if os.path.isdir(own) else []:
        if name not in mounted:
            os.symlink(os.path.join(own, name), os.path.join(new, name))
    for mount, folder in mounted.items():
        os.symlink(folder, os.path.join(new, mount))
    agent.remove_tree(view)
    os.rename(new, view)
    agent.reply({"path": view})


def lay_out(agent, digest):
    """A dataset's folder from its manifest. One in which somebody wrote is made anew."""
    folder = folder_of(agent, digest)
    files = agent.load_json(agent.path_of("bundles", digest + ".json"))
    if files is None:
        if os.path.isdir(folder):  # fetched here
            return
        raise agent.Failure("no-bundle", "the data %s is not on this machine" % digest[:12])
    if os.path.isdir(folder):
        if is_intact(agent, files, folder):
            return
    new = folder + ".new"
    agent.remove_tree(new)
    os.makedirs(new)
    for path, size, _, sha, link in files:
        target = os.path.join(os.fsencode(new), agent.to_bytes(path))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if link:
            if agent.stays_inside(agent.to_bytes(path), agent.to_bytes(link)):
                os.symlink(agent.to_bytes(link), target)
            continue
        source = agent.object_path(sha)
        if agent.file_size(source) != size or hash_file(source) != sha:
            agent.forget(source, agent.path_of("bundles", digest + ".json"))
            raise agent.Failure("damaged", "the stored content of %s is damaged or gone: push it again" % path)
        agent.link_or_copy(source, target)
        os.chmod(target, 0o444)
    if os.path.isdir(folder):
        agent.remove_tree(folder + ".old")
        os.rename(folder, folder + ".old")
    os.rename(new, folder)
    agent.remove_tree(folder + ".old")


def is_intact(agent, files, folder):
    """Whether the folder holds these files and no others, each still the one that was linked."""
    wanted = dict((agent.to_bytes(path), (size, link)) for path, size, _, _, link in files)
    root, found = os.fsencode(folder), 0
    for place, _, names in os.walk(root):
        for name in names:
            path = os.path.join(place, name)
            size, link = wanted.get(os.path.relpath(path, root), (-1, ""))
            facts = os.lstat(path)
            if not link and (facts.st_size != size or facts.st_mode & 0o222):
                return False
            found += 1
    return found + count_links_to_folders(root) == len(wanted)


def count_links_to_folders(root):
    """os.walk calls them folders."""
    return sum(os.path.islink(os.path.join(place, name)) for place, names, _ in os.walk(root) for name in names)


# --- fetch: from an address, not through home ----------------------------------------------


def fetch(agent, request):
    """Download to this machine, verified; a cut one goes on where it stopped. Safe to repeat."""
    digest, sha256 = request["digest"], request["sha256"]
    folder = folder_of(agent, digest)
    with held(agent, digest):
        if not os.path.isdir(folder):
            part = agent.path_of("datasets", sha256 + ".part")
            download(agent, request["url"], part, sha256)
            new = folder + ".new"
            agent.remove_tree(new)
            os.makedirs(new)
            if request["extract"]:
                extract(agent, part, new)
            else:
                name = clean(agent, request["name"]).rpartition("/")[2] or "data"
                os.rename(os.fsencode(part), os.path.join(os.fsencode(new), agent.to_bytes(name)))
            forbid_writing(new)
            os.rename(new, folder)
    agent.reply({"path": folder})


def download(agent, url, part, sha256):
    for attempt in range(TRIES):
        try:
            continue_download(agent, url, part)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is missing
                break
            if error.code < 500 and error.code != 429 or attempt == TRIES - 1:
                raise agent.Failure("fetch", "%s answers %d %s" % (url, error.code, error.reason))
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in agent.FULL:
                raise
            if attempt == TRIES - 1:
                raise agent.Failure("fetch", "%s cannot be fetched: %s" % (url, error))
        time.sleep(RETRY_S * 2 ** attempt)
    actual = hash_file(part)
    if actual != sha256:
        os.unlink(part)
        raise agent.Failure("checksum", "%s gives other content: sha256 %s, not %s" % (url, actual, sha256))


def continue_download(agent, url, part):
    have = max(0, agent.file_size(part))
    headers = {"Range": "bytes=%d-" % have} if have else {}
    answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    with answer, open(part, "ab") as file:
        if answer.getcode() != 206:
            file.truncate(0)
            have = 0
        left = answer.headers.get("Content-Length")
        total = have + int(left) if left else 0
        told = 0.0
        while True:
            block = answer.read(BLOCK)
            if not block:
                break
            file.write(block)
            have += len(block)
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                agent.send_frame(b"P", json.dumps([have, total]).encode("ascii"))
    if have < total:
        raise ValueError("cut after %d of %d bytes" % (have, total))


def extract(agent, archive, to):
    """Unpack tar (gz, bz2, xz) or zip, which then goes. What would land outside the folder, and what is no
    file, is refused, and nothing of it stays."""
    try:
        if zipfile.is_zipfile(archive):
            extract_zip(agent, archive, to)
        elif tarfile.is_tarfile(archive):
            extract_tar(agent, archive, to)
        else:
            raise agent.Failure("archive", "what was fetched is neither tar nor zip: leave out --extract")
        agent.forget(archive)
    except agent.Failure as failure:
        agent.remove_tree(to)
        if failure.kind == "archive":
            agent.forget(archive)
        raise
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        agent.remove_tree(to)
        agent.forget(archive)
        raise agent.Failure("archive", "the archive cannot be unpacked: %s" % error)


def extract_tar(agent, archive, to):
    with tarfile.open(archive) as tar:
        for member in tar:
            name = clean(agent, member.name)
            if not name or member.isdir():
                continue
            if not member.isfile():
                raise agent.Failure("archive", "refused %r in the archive: it is not a plain file" % member.name)
            write_member(agent, tar.extractfile(member), member.size, to, name)


def extract_zip(agent, archive, to):
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            name = clean(agent, member.filename)
            if not name or member.filename.endswith("/"):
                continue
            if member.external_attr >> 28 not in (0, 0o10):
                raise agent.Failure("archive", "refused %r in the archive: it is not a plain file" % member.filename)
            with packed.open(member) as source:
                write_member(agent, source, member.file_size, to, name)


def clean(agent, name):
    """The name without ./ in front; "" for the folder itself."""
    while name.startswith("./"):
        name = name[2:]
    name = name.rstrip("/")
    if name in ("", "."):
        return ""
    if not agent.is_safe(name):
        raise agent.Failure("archive", "refused %r in the archive: it would be written elsewhere" % name)
    return name


def write_member(agent, source, size, to, name):
    if size > shutil.disk_usage(to).free:
        raise agent.Failure("disk-full", "the archive unpacks to more than the disk holds")
    target = os.path.join(os.fsencode(to), agent.to_bytes(name))
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb") as file:
            shutil.copyfileobj(source, file, BLOCK)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise agent.Failure("archive", "the archive holds %r twice" % name)


def forbid_writing(folder):
    for place, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            os.chmod(os.path.join(place, name), 0o444)


# --- discard -----------------------------------------------------------------------------


def discard(agent, request):
    """Remove datasets that no run here uses; {"bytes": freed, "used": those that stay}. Without `remove` only say
    so. No digests are all that were laid out. Content that another manifest names stays. Safe to repeat."""
    lock = agent.lock_objects()
    if lock is None:
        raise agent.Failure("busy", "something is being sent to this machine")
    root = agent.path_of("datasets")
    laid_out = [name for name in (os.listdir(root) if os.path.isdir(root) else []) if len(name) == 64]
    asked = request["digests"] or laid_out
    used = in_use(agent) & set(asked)
    going = [digest for digest in asked if digest not in used]
    names = os.listdir(agent.path_of("bundles")) if os.path.isdir(agent.path_of("bundles")) else []
    kept = [name for name in names if name[:64] not in going]
    needed = set(sha for name in kept for _, _, _, sha, _ in agent.load_json(agent.path_of("bundles", name)) or [])
    freed = sum(remove_data(agent, digest, needed, request["remove"]) for digest in going)
    agent.reply({"bytes": freed, "used": sorted(used)})


def in_use(agent):
    """The digests that runs which have not ended find in their folder of data."""
    found, root = set(), agent.path_of("runs")
    for key in os.listdir(root) if os.path.isdir(root) else []:
        view = os.path.join(root, key, "data")
        if os.path.isdir(view) and not is_over(agent.load_state(key)["state"], view):
            links = [os.path.join(view, name) for name in os.listdir(view)]
            found |= set(os.path.basename(os.readlink(link)) for link in links if os.path.islink(link))
    return found


def is_over(state, view):
    """Also where a run was never started after its data was laid out."""
    return state == "ended" or state == "absent" and time.time() - os.lstat(view).st_mtime > START_S


def remove_data(agent, digest, needed, remove):
    """Bytes of content that goes with a dataset: its own objects, or what was fetched into its folder."""
    record = agent.path_of("bundles", digest + ".json")
    with held(agent, digest):
        files = agent.load_json(record)
        sizes = dict((agent.object_path(sha), size) for _, size, _, sha, link in files or [] if not link)
        going = [path for path in sizes if os.path.basename(path) not in needed and os.path.exists(path)]
        freed = sum(sizes[path] for path in going) if files else bytes_below(folder_of(agent, digest))
        if remove:
            agent.forget(record, *going)
            agent.remove_tree(folder_of(agent, digest))
        needed.update(map(os.path.basename, going))  # counted once, where two datasets share it
    return freed


def bytes_below(folder):
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)


# --- shared ------------------------------------------------------------------------------


class held:
    """One process at a time works on a dataset; others wait."""

    def __init__(self, agent, digest):
        if len(digest) != 64 or digest.strip("0123456789abcdef"):
            raise agent.Failure("request", "not a digest: %r" % digest)
        os.makedirs(agent.path_of("datasets"), exist_ok=True)
        self._path = agent.path_of("datasets", digest + ".lock")

    def __enter__(self):
        self._lock = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __exit__(self, *_):
        os.close(self._lock)


def folder_of(agent, digest):
    return agent.path_of("datasets", digest)


def hash_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
