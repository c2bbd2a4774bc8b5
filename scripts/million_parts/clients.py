"""The clients: `forebay load idle` holds the connections, `forebay load fan` measures beside them, and a publisher."""

import json
import socket
import subprocess
import threading
import time

from measure.machine import FOREBAY, Failed

from .system import ORG

# Of the 28,232 ports that Linux gives to a source address, connect() looks at the even ones first, and takes ever longer to find one.
CONNECTIONS_PER_SOURCE = 7_000

# Requests of the publisher that are on their way.
PUBLISHING_MAX = 64
PUBLISH_SECONDS_MAX = 60

PROBE_CHANNELS = 100
PROBE_RATE = 100
PROBE_SECONDS = 10


class Held:
    """Connections that are opened in steps, and held."""

    def __init__(self, system, path, counts):
        command = [FOREBAY, "load", "idle", "--json", "--steps", "--rate=0", f"--connect={system.address}"]
        command += [f"--path=/events/{ORG}?channel_id={path}&last_event_id=$", "--count=" + ",".join(map(str, counts))]
        command.append(f"--sources={-(-counts[-1] // CONNECTIONS_PER_SOURCE)}")
        command.append(f"--header=Authorization: Bearer {system.token('subscribe')}")
        pipe = subprocess.PIPE
        self.running = subprocess.Popen(list(map(str, command)), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.events = self.read_bytes = self.dropped = self.failed = self.open = 0
        self.is_begun = False

    @property
    def pids(self):
        return [self.running.pid]

    def step(self):
        """Opens as many as the next step says, and returns the report."""
        if self.is_begun:
            self._say("")
        self.is_begun = True
        return self._read()

    def stats(self):
        """What has happened since the last report."""
        self._say("stats")
        return self._read()

    def _say(self, line):
        self.running.stdin.write(line + "\n")
        self.running.stdin.flush()

    def _read(self):
        line = self.running.stdout.readline()
        if not line:
            raise Failed(f"forebay load idle: {self.running.stderr.read().strip()}")
        report = json.loads(line)
        self.events += report["events"]
        self.read_bytes += report["read_bytes"]
        self.dropped, self.failed, self.open = report["dropped"], report["failed"], report["open"]
        return report

    def end(self):
        """Closes all of them; returns what was wrong, if anything was."""
        _, error = self.running.communicate()
        return error.strip() if self.running.returncode != 0 else ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.running.poll() is None:
            self.running.kill()
            self.running.communicate()


def probe(system):
    """How long an event takes to its reader, on a few channels of their own: the report of `forebay load fan`."""
    command = [FOREBAY, "load", "fan", "--json", f"--connect={system.address}", f"--org={ORG}", f"--keys={system.keys}"]
    command += [f"--subscribers={PROBE_CHANNELS}", f"--channels={PROBE_CHANNELS}", f"--rate={PROBE_RATE}"]
    command.append(f"--seconds={PROBE_SECONDS}")
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"forebay load fan: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


class Publisher(threading.Thread):
    """Publishes one event to each of some channels, with a few requests on their way at a time."""

    def __init__(self, system, channels, payload):
        super().__init__()
        host, _, port = system.address.rpartition(":")
        self.address = (host, int(port))
        self.channels = channels
        body = json.dumps({"payload": {"text": payload}})
        head = ["HTTP/1.1", f"Host: {system.address}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        head.append(f"Authorization: Bearer {system.token('publish')}")
        self.rest = ("\r\n".join(head) + f"\r\n\r\n{body}").encode()
        self.error = None
        self.began = self.took = 0.0

    def run(self):
        count = min(PUBLISHING_MAX, len(self.channels))
        sockets = [socket.create_connection(self.address, PUBLISH_SECONDS_MAX) for _ in range(count)]
        self.began = time.monotonic()
        try:
            for index, channel in enumerate(self.channels):
                at = sockets[index % len(sockets)]
                if index >= len(sockets):
                    _read_answer(at)
                at.sendall(f"POST /publish/{ORG}/{channel} ".encode() + self.rest)
            for at in sockets:
                _read_answer(at)
        except (OSError, Failed) as error:
            self.error = str(error)
        self.took = time.monotonic() - self.began
        for at in sockets:
            at.close()


def _read_answer(at):
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        if end:
            break
        answer += _more(at)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise Failed(f"not published: {answer.decode(errors='replace')}")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0].partition(b":")[2]) - len(body)
    while missing > 0:
        missing -= len(_more(at))


def _more(at):
    piece = at.recv(4096)
    if not piece:
        raise Failed("not published: the edge closed the connection")
    return piece
