"""What only a machine at Azure needs, one file beside the agent: standard library, Python 3.5 syntax.

The agent's guard takes the class Notices from here, and calls it every two seconds. `azure.py release`
deallocates the machine it runs on, as that machine's own identity: nothing but deallocating ends the bill.
It ends with 0 when the machine is deallocated or going down, with 1 when neither could be had.
"""

import http.client
import json
import os
import sys
import time
from email.utils import mktime_tz, parsedate_tz
from urllib.parse import quote, urlsplit

METADATA = os.environ.get("CLOUDRUN_AZURE_METADATA_ENDPOINT") or "http://169.254.169.254"
MANAGEMENT = os.environ.get("CLOUDRUN_AZURE_ENDPOINT") or "https://management.azure.com"
# Scheduled Events for Linux VMs, Instance Metadata Service, "How to use managed identities on a VM" and the
# REST reference of Virtual Machines - Deallocate, all of learn.microsoft.com, read 2026-03.
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
COMPUTE = "/metadata/instance/compute?api-version=2021-02-01"
TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
VERSION = "api-version=2024-07-01"
ANSWER_S = 2.0  # the first question may be answered after minutes only: the guard goes on and asks again
MOST_BYTES = 1024 * 1024
PATIENCE_S = 60.0  # with what stands in the way of a release
LAST_PATIENCE = 5  # times as long for a machine whose end was promised
PASSING = (401, 408, 409, 410, 429)  # and all from 500: another try, with a token of its own, may do
METADATA_PASSING = PASSING + (404,)  # while the service is being updated


class Refused(Exception):
    """An answer that another try would not change."""


class Later(Exception):
    """An answer that another try may change, in so many seconds if Azure says when."""

    def __init__(self, message, after_s=0.0):
        Exception.__init__(self, message)
        self.after_s = after_s


OBSTACLES = (Later, OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError)


# --- what will happen to the machine -------------------------------------------------------------


class Notices:
    """Azure's Scheduled Events. A Preempt comes 30 s ahead, as good as it can; all others let the machine or its
    memory live, or were asked for, and are only written down."""

    def __init__(self):
        self.name = self.action = ""
        self.logged = set()
        self.times = {}  # EventId: when, as it was said first; Azure no longer says once it has begun
        self.waiting = []  # EventIds that Azure would go ahead with if it were told
        self.approved = set()

    def poll(self):
        """{action, time, left_s} of a preemption of this machine, None where there is none. Raises whatever the
        service does wrong."""
        if not self.name:
            machine = read(ask_metadata(COMPUTE, ANSWER_S))
            self.action = "terminate" if machine.get("evictionPolicy") == "Delete" else "stop"
            self.name = machine["name"]
        answer = ask_metadata(EVENTS, ANSWER_S)
        now = unix_time(answer[0].get("Date")) or time.time()  # the service's own clock
        events = read(answer).get("Events") or []
        events = [event for event in events if self.name in (event.get("Resources") or [])]
        self.log([event for event in events if event.get("EventType") != "Preempt"])
        events = [event for event in events if event.get("EventType") == "Preempt"]
        self.times = dict((event["EventId"], self.time_of(event, now)) for event in events)
        begins = [event["EventId"] for event in events if event.get("EventStatus") == "Scheduled"]
        self.waiting = [number for number in begins if number not in self.approved]
        if not events:
            return None
        when = min(self.times.values())
        said_so = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
        return {"action": self.action, "time": said_so, "left_s": when - now}

    def time_of(self, event, now):
        return self.times.get(event["EventId"]) or unix_time(event.get("NotBefore")) or now

    def log(self, events):
        """Each event once for each of its states."""
        names = ("EventType", "EventStatus", "NotBefore", "EventSource", "EventId")
        lines = [" ".join(str(event.get(name) or "-") for name in names) for event in events]
        for line in lines:
            if line not in self.logged:
                sys.stderr.write("event: %s\n" % line)
        self.logged = set(lines)

    def done(self):
        """All runs have ended: once the disk has all that they wrote, Azure may go ahead. Approves each event
        once, however often it is called. Where the disk goes too, what is being stored of it has the time that
        is left."""
        if not self.waiting or self.action == "terminate" and is_storing():
            return
        os.sync()
        body = json.dumps({"StartRequests": [{"EventId": number} for number in self.waiting]}).encode("ascii")
        ask_metadata(EVENTS, ANSWER_S, "POST", body)
        self.approved.update(self.waiting)
        self.waiting = []


def is_storing():
    """Whether the outbox of a run is not done yet."""
    runs = os.path.join(os.path.expanduser("~"), ".cloudrun", "runs")
    keys = os.listdir(runs) if os.path.isdir(runs) else []
    return any(os.path.exists(os.path.join(runs, key, "outbox")) for key in keys)


def unix_time(text):
    """Unix seconds of a time like Tue, 09 Aug 2022 17:07:32 GMT, None for none."""
    parts = parsedate_tz(text or "")
    return mktime_tz(parts) if parts else None


# --- release ---------------------------------------------------------------------------------------------------


def release():
    """Deallocate this machine; where that is refused, or cannot be had in a minute, switch it off: then at least
    its work has ended. Blocks until the machine goes, or until it is clear that it does not."""
    patience_s = float(os.environ.get("CLOUDRUN_AZURE_RELEASE_S") or PATIENCE_S)
    give_up_at = time.monotonic() + patience_s
    pause_s = patience_s / 60
    while True:
        try:
            deallocate(patience_s)
            tell("deallocated")
            return 0
        except Refused as refusal:
            tell("Azure refuses: %s" % refusal)
            break
        except OBSTACLES as obstacle:
            left_s = give_up_at - time.monotonic()
            wait_s = max(0.0, min(left_s, max(pause_s, getattr(obstacle, "after_s", 0.0))))
            tell("%s: %s" % (type(obstacle).__name__, obstacle))
            if left_s <= 0:
                break
        time.sleep(wait_s)
        pause_s = min(2 * pause_s, patience_s / 4)
    return switch_off()


def deallocate(patience_s):
    """Ask for it and see it happen; most often this process is what ends first. Raises Refused, or an obstacle."""
    machine = quote(read(ask_metadata(COMPUTE, patience_s / 4))["resourceId"])
    ask_management("POST", "%s/deallocate?%s" % (machine, VERSION), patience_s)
    tell("Azure deallocates this machine")
    until = time.monotonic() + LAST_PATIENCE * patience_s
    while time.monotonic() < until:
        time.sleep(patience_s / 12)
        provisioning, power = states(machine, patience_s)
        if power == "PowerState/deallocated":
            return
        if provisioning == "Failed":
            raise Later("it could not")
    raise Later("it did not")


def states(machine, patience_s):
    """(provisioning state, power state) of the machine, None where that cannot be seen."""
    try:
        path = "%s?$expand=instanceView&%s" % (machine, VERSION)
        seen = read(ask_management("GET", path, patience_s))["properties"]
        codes = [status["code"] for status in seen.get("instanceView", {}).get("statuses", [])]
        return seen.get("provisioningState"), ([code for code in codes if code.startswith("PowerState/")] + [None])[0]
    except OBSTACLES + (Refused,):
        return None, None


def switch_off():
    """Azure bills on for a machine that is off inside, until somebody deallocates it."""
    import subprocess

    argv = ["shutdown", "-h", "now"] if os.geteuid() == 0 else ["sudo", "-n", "shutdown", "-h", "now"]
    tell("as the last resort: %s" % " ".join(argv))
    try:
        return 1 if subprocess.call(argv, stdin=subprocess.DEVNULL) else 0
    except OSError as error:
        tell(str(error))
        return 1


def tell(line):
    sys.stderr.write("release: %s\n" % " ".join(line.split()))
    sys.stderr.flush()


# --- HTTP ------------------------------------------------------------------------------------------------------


def ask_metadata(path, timeout_s, method="GET", body=None):
    return ask(METADATA, method, path, {"Metadata": "true"}, body, timeout_s, METADATA_PASSING)


def ask_management(method, path, patience_s):
    """With a token of this machine's identity: the metadata service keeps one, so it costs little."""
    token = read(ask_metadata(TOKEN, patience_s / 4))["access_token"]
    return ask(MANAGEMENT, method, path, {"Authorization": "Bearer " + token}, None, patience_s / 4, PASSING)


def ask(where, method, path, headers, body, timeout_s, passing):
    """(headers, body) of a good answer; Refused or an obstacle for another. Neither a proxy nor a redirect is
    asked: the token is for nobody else."""
    place = urlsplit(where)
    connection = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    asked = connection(place.hostname, place.port, timeout=timeout_s)
    try:
        asked.request(method, place.path.rstrip("/") + path, body, headers)
        answer = asked.getresponse()
        status, headers, body = answer.status, answer.headers, answer.read(MOST_BYTES)
    finally:
        asked.close()
    if status in (200, 202):
        return headers, body
    message = "status %d from %s %s" % (status, where, " ".join(body[:500].decode("utf-8", "replace").split()))
    if status not in passing and status < 500:
        raise Refused(message)
    after = headers.get("Retry-After") or ""
    raise Later(message, float(after) if after.isdigit() else 0.0)


def read(answer):
    return json.loads(answer[1].decode("utf-8"))


if __name__ == "__main__":
    if sys.argv[1:] != ["release"]:
        sys.stderr.write("usage: azure.py release\n")
        sys.exit(2)
    sys.exit(release())
