"""Content of data fetched from a bucket, at addresses that home signed, one file beside the agent: standard
library, Python 3.5 syntax. Pushed on first use.

Called with the name of the agent's module and a verb; it talks to home as the agent does. No address is kept,
or stands in what it says.
"""

import hashlib
import http.client
import importlib
import json
import os
import re
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

BLOCK = 1024 * 1024
GAP = 1024 * 1024  # read and thrown away rather than asked around
THREADS = 4
TRIES = 5
RETRY_S = 0.5  # before the second try; it doubles
TIMEOUT_S = 60.0  # of silence
TELL_S = 0.5  # how often progress is told
PASSING = (408, 429)  # and all from 500: another try may do


def main(argv):
    agent, verb = importlib.import_module(argv[0]), argv[1]
    os.umask(0o077)
    return agent.serve(lambda: {"gather": gather}[verb](agent, agent.read_request()))


def gather(agent, request):
    """Say whether a dataset's content is here; else fetch what is missing from its packs. Safe to repeat, also
    after a cut."""
    if not re.match(r"[0-9a-f]{64}\Z", request["digest"]):
        raise agent.Failure("request", "not a digest: %r" % request["digest"])
    record = agent.path_of("bundles", request["digest"] + ".json")
    have = agent.load_json(record) is not None
    agent.reply({"have": have})
    if have:
        return
    asked = agent.read_request()
    agent.check_files(asked["files"])
    lock = agent.lock_objects()  # held until the end of this process
    suffix = ".part" if lock is not None else ".%d.part" % os.getpid()
    packs, total = {}, 0
    for _, sha, size, there in agent.find_missing(asked["files"], suffix):
        if size:
            pack, offset = asked["pieces"][sha]
            packs.setdefault(pack, []).append((offset, size, sha))
            total += size - there
        else:
            agent.open_object(agent.object_path(sha), os.O_RDWR).close()
    fetched = Fetch(agent, asked, suffix, total)
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(fetched.pack, name, sorted(pieces)) for name, pieces in packs.items()]:
            done.result()
    fetched.send_progress()
    os.makedirs(agent.path_of("bundles"), exist_ok=True)
    agent.save_json(record, asked["files"])
    agent.reply({})


class Fetch:
    """Pieces of packs, each written to its place in objects/ and verified. For several threads."""

    def __init__(self, agent, asked, suffix, total):
        self.agent, self.addresses, self.suffix, self.total = agent, asked["addresses"], suffix, total
        self.context = ssl.create_default_context()
        if asked["authority"]:
            self.context.load_verify_locations(cadata=asked["authority"])
        self.lock, self.done, self.told_at = threading.Lock(), 0, 0.0

    def pack(self, name, pieces):
        """All these pieces of one pack; what is here after a failed try is not asked for again."""
        for attempt in range(TRIES):
            try:
                for run in self.runs(pieces):
                    self.answer(self.addresses[name], run)
                return
            except urllib.error.HTTPError as error:
                said = "%d %s" % (error.code, error.reason)
                if error.code < 500 and error.code not in PASSING:
                    break
            except (OSError, http.client.HTTPException, EOFError) as error:  # an address may stand in its words
                if getattr(error, "errno", None) in self.agent.FULL:
                    raise
                said = type(error).__name__
            if attempt < TRIES - 1:
                time.sleep(RETRY_S * 2 ** attempt)
        raise self.agent.Failure("fetch", "the bucket does not give a pack of data: %s" % said)

    def runs(self, pieces):
        """What is missing, as lists of pieces that one answer gives. One that was cut begins a list."""
        runs, end = [], None
        for offset, size, sha in pieces:
            path = self.agent.object_path(sha)
            if self.agent.file_size(path) == size:
                continue
            there = self.agent.file_size(path + self.suffix)
            there = there if 0 < there < size else 0
            if end is None or there or offset - end > GAP:
                runs.append([])
            runs[-1].append((offset, size, sha, there))
            end = offset + size
        return runs

    def answer(self, address, run):
        """One request, and what it gives written away piece by piece."""
        at = run[0][0] + run[0][3]
        last = run[-1][0] + run[-1][1] - 1
        asked = urllib.request.Request(address, headers={"Range": "bytes=%d-%d" % (at, last)})
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S, context=self.context) as answer:
            if answer.getcode() != 206:
                at = 0
            for offset, size, sha, there in run:
                for _ in blocks(answer, offset + there - at):
                    pass
                self.take(answer, sha, size, there)
                at = offset + size

    def take(self, answer, sha, size, there):
        path, digest = self.agent.object_path(sha), hashlib.sha256()
        flags = os.O_RDWR if there else os.O_RDWR | os.O_TRUNC
        with self.agent.open_object(path + self.suffix, flags) as file:
            for block in blocks(file, there):
                digest.update(block)
            for block in blocks(answer, size - there):
                self.agent.write_all(file.fileno(), block)
                digest.update(block)
                self.tell(len(block))
        self.agent.settle(digest.hexdigest(), sha, path + self.suffix, path)

    def tell(self, size):
        with self.lock:
            self.done += size
            if time.monotonic() - self.told_at > TELL_S:
                self.told_at = time.monotonic()
                self.send_progress()

    def send_progress(self):
        self.agent.send_frame(b"P", json.dumps([self.done, self.total]).encode("ascii"))


def blocks(source, size):
    """The next `size` bytes. Raises EOFError where they end early."""
    while size:
        block = source.read(min(BLOCK, size))
        if not block:
            raise EOFError()
        size -= len(block)
        yield block


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
