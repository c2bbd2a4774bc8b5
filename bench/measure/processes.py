"""Processes of one scene: each is started on its core with its output in a file, and all are ended with the scene.

Nothing is waited for by time: a process is ready when it says so, or when it answers.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .machine import Failed, OTHER_CORE

READY_SECONDS = 30
POLL_SECONDS = 0.02
END_SECONDS = 15


def pinned(core, first=False):
    """What stands before a command that runs on a core; `first` if it gets the core at once when it wants it."""
    urgent = ["chrt", "--rr", "1"] if first and os.geteuid() == 0 and shutil.which("chrt") else []
    return ["taskset", "-c", core, *urgent]


class Process:
    """One process, pinned to a core."""

    def __init__(self, name, command, core, directory, first=False):
        self.name = name
        self.log = Path(directory) / f"{name}.log"
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(
                [*pinned(core, first), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
            )
        self.pid = self.popen.pid

    def until(self, condition, what):
        """Waits until the condition holds, and returns what it returned."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise Failed(f"{self.name} has ended:\n{self.said()}")
            if result := condition():
                return result
            time.sleep(POLL_SECONDS)
        raise Failed(f"{self.name}: {what} does not come:\n{self.said()}")

    def says(self, pattern):
        """Waits until the process has printed this."""
        return self.until(lambda: re.search(pattern, self.log.read_text(errors="replace"), re.M), pattern)

    def answers(self, address, path, headers=()):
        """Waits until a request is answered with a status of success."""
        host, _, port = address.rpartition(":")
        fields = "".join(f"{header}\r\n" for header in headers)
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()

        def try_once():
            try:
                with socket.create_connection((host, int(port)), timeout=2) as client:
                    client.sendall(request)
                    return client.recv(4096).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

        self.until(try_once, f"an answer to {path}")

    def said(self):
        return self.log.read_text(errors="replace")[-2000:]

    def end(self):
        self.popen.terminate()
        try:
            self.popen.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Scene:
    """A directory and the processes in it; the last that was started is ended first."""

    def __enter__(self):
        # In memory: what else is written to the disk would be measured.
        self.directory = tempfile.mkdtemp(prefix="forebay-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.processes = []
        return self

    def start(self, name, command, core=OTHER_CORE, first=False):
        process = Process(name, command, core, self.directory, first)
        self.processes.append(process)
        return process

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.end()
        shutil.rmtree(self.directory, ignore_errors=True)
