"""The system: Redis, edges on one port, two handlers behind all of them."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

from measure import machine
from measure.machine import FOREBAY, ROOT, Failed

ORG = "1"
HANDLERS = 2

# Connections beside those that are held: publishers and probes.
CONNECTIONS_BESIDE = 500
# Of a process's descriptors, those that are for other things than clients.
DESCRIPTORS_RESERVED = 150
# The kernel chooses an edge for each connection by a hash: the fullest of 60 has some three standard deviations more than its share.
SHARE_MAX = 0.87

KEEP_ALIVE_SECONDS = 55

READY_SECONDS = 60
LOOK_SECONDS = 0.05
END_SECONDS = 60


def prepare():
    """Builds Forebay, and installs Redis."""
    if not shutil.which("redis-server"):
        subprocess.run([ROOT / "scripts/install-debian", "redis-server"], check=True)
    build = ["cargo", "build", "--release", "--quiet", "--package", "forebay", "--bin", "forebay"]
    subprocess.run(build, cwd=ROOT, check=True)


def edges_needed(count):
    """How many edges the limit of descriptors forces, and how many connections each may take."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = (sys.maxsize if limit == resource.RLIM_INFINITY else limit) - DESCRIPTORS_RESERVED
    wanted = count + CONNECTIONS_BESIDE
    if wanted <= room:
        return 1, wanted
    return -(-wanted // int(room * SHARE_MAX)), room


class System:
    """All processes of the server's side, and where clients connect."""

    def __init__(self, count, directory, logs):
        self.directory, self.logs = directory, logs
        self.keys = directory / "data"
        self.address = f"127.0.0.1:{machine.free_port()}"
        self.edge_count, self.connections_max = edges_needed(count)
        self.specs = [f"ipc://{directory}/edge-{number}" for number in range(self.edge_count)]
        self.running = {"edges": [], "handlers": [], "redis": []}

    def __enter__(self):
        try:
            self._start_redis()
            for number, spec in enumerate(self.specs):
                self._start_edge(number, spec)
            for number in range(HANDLERS):
                self.start_handler(number)
            _until(lambda: self._answers(f"/channels/{ORG}/ready/head"), "an answer of the handlers")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in [*self.running["edges"], *self.running["handlers"], *self.running["redis"]]:
            process.terminate()
        for group in self.running.values():
            for process in group:
                _end(process)

    def pids(self):
        """The processes by what they are."""
        return {name: [process.pid for process in group] for name, group in self.running.items()}

    def _start(self, name, command):
        with open(self.logs / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def _start_redis(self):
        # Events of a measurement need not outlive it.
        command = ["redis-server", "--port", "0", "--unixsocket", self._redis_path(), "--save", "", "--appendonly", "no"]
        command += ["--maxmemory-policy", "noeviction", "--dir", self.directory]
        self.running["redis"] = [self._start("redis", command)]
        _until(self._redis_path().exists, "Redis")

    def _redis_path(self):
        return self.directory / "redis.sock"

    def _start_edge(self, number, spec):
        command = [FOREBAY, "connmgr", f"--id=edge-{number}", f"--listen={self.address},shared", "--workers=1"]
        command += [f"--zclient-stream={spec}", f"--stream-maxconn={self.connections_max}"]
        process = self._start(f"edge-{number}", command)
        self.running["edges"].append(process)
        self._until_says(process, f"edge-{number}", r"started$")

    def start_handler(self, number):
        """Starts a handler behind all edges, in the place of the one that had this number."""
        command = [FOREBAY, "handler", "--role=publish,fanout", f"--id=handler-{number}", "--idle-ttl=1d"]
        command.append(f"--keep-alive={KEEP_ALIVE_SECONDS}s")
        command += [f"--edge={spec}" for spec in self.specs]
        command += [f"--redis=redis+unix://{self._redis_path()}", f"--data-dir={self.keys}"]
        self.running["handlers"][number : number + 1] = [self._start(f"handler-{number}", command)]
        _until((self.keys / "keys").is_dir, "the handlers' keys")

    def end_handler(self, number, how=signal.SIGTERM):
        """Ends a handler by a signal, and waits until it has ended."""
        process = self.running["handlers"][number]
        process.send_signal(how)
        process.wait(END_SECONDS)

    def _until_says(self, process, name, pattern):
        def says():
            if process.poll() is not None:
                raise Failed(f"{name} has ended: {(self.logs / f'{name}.log').read_text()[-1000:]}")
            return re.search(pattern, (self.logs / f"{name}.log").read_text(), re.M)

        _until(says, f"{name}: {pattern}")

    def token(self, role):
        """A token for all channels."""
        command = [FOREBAY, "token", role, f"--org={ORG}", "--ttl=1d", f"--data-dir={self.keys}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _answers(self, path):
        curl = ["curl", "-sf", "-o", os.devnull, "-H", f"Authorization: Bearer {self.token('subscribe')}"]
        return subprocess.run([*curl, f"http://{self.address}{path}"]).returncode == 0


def _until(condition, what):
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what} does not come")
        time.sleep(LOOK_SECONDS)


def _end(process):
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
