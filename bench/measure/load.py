"""`forebay load`, run on the core that the server has not, and what it reports."""

import json
import os
import subprocess
import time

from . import machine
from .machine import Failed, OTHER_CORE
from .processes import pinned

# A process whose memory changes by less than this between two looks has settled.
SETTLED_BYTES = 16_384
SETTLE_LOOK_SECONDS = 0.5
SETTLE_SECONDS_MAX = 6
OPEN_SECONDS_MAX = 30
OPEN_LOOK_SECONDS = 0.1


def _command(kind, server, options, core=OTHER_CORE, first=False):
    pids = ",".join(map(str, server.pids))
    command = [*pinned(core, first), machine.FOREBAY, "load", kind, "--json", "--connect", server.address]
    return [*map(str, command), "--pid", pids, *map(str, options)]


def start(kind, server, *options, core=OTHER_CORE, first=False):
    """Starts a load in the background; `report` waits for it."""
    command = _command(kind, server, options, core, first)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(running):
    """Waits for a load, and returns its report."""
    out, error = running.communicate()
    try:
        result = json.loads(out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"forebay load: {error.strip() or out.strip()}") from None
    if running.returncode != 0:
        result["fault"] = error.strip()
    return result


def run(kind, server, *options, core=OTHER_CORE):
    """Runs a load to its end, and returns its report."""
    return report(start(kind, server, *options, core=core))


def wait_for_connections(server, count):
    """Waits until a server has so many connections, by the sockets that it has open."""
    deadline = time.monotonic() + OPEN_SECONDS_MAX
    while time.monotonic() < deadline:
        if sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in server.pids) >= count:
            return
        time.sleep(OPEN_LOOK_SECONDS)
    raise Failed(f"there are no {count} connections after {OPEN_SECONDS_MAX} s")


class Held:
    """Connections that are opened in steps, and held between them."""

    def __init__(self, server, *options):
        self.running = subprocess.Popen(
            _command("idle", server, [*options, "--steps"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.is_begun = False

    def step(self):
        """Opens as many as the next step says, and returns its report."""
        if self.is_begun:
            self._say("")
        self.is_begun = True
        return self._read()

    def stats(self):
        """A report of what is held now."""
        self._say("stats")
        return self._read()

    def _say(self, line):
        self.running.stdin.write(line + "\n")
        self.running.stdin.flush()

    def _read(self):
        line = self.running.stdout.readline()
        if not line:
            raise Failed(f"forebay load idle: {self.running.stderr.read().strip()}")
        step = json.loads(line)
        if step["failed"] or step["dropped"]:
            raise Failed(f"forebay load idle: {step['failed']} failed, {step['dropped']} dropped: {step.get('warnings')}")
        return step

    def end(self):
        """Closes all of them."""
        self.running.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.running.poll() is None:
            self.end()


def settled_bytes(pids, seconds_max=SETTLE_SECONDS_MAX, below=None):
    """Resident memory when it changes no more (and, if that is said, is not above a bound any more)."""
    deadline = time.monotonic() + seconds_max
    last = machine.resident_bytes(pids)
    while time.monotonic() < deadline:
        time.sleep(SETTLE_LOOK_SECONDS)
        now = machine.resident_bytes(pids)
        if abs(now - last) < SETTLED_BYTES and (below is None or now <= below):
            return now
        last = now
    return last
