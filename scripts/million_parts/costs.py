"""What processes and the kernel use, of the processor and of memory.

Memory of a process is its share (PSS): what the edges have in common, their code above all, is counted once. The kernel's is its slab
(sockets, files, items of epoll) and what waits in sockets. Beside these sums stands what the whole machine has less of than before,
which has all in it that no sum has.
"""

import os
import re
import threading
import time
from pathlib import Path

from measure import machine

LOOK_SECONDS = 1.0

# Below this the machine is about to kill somebody: we end ourselves.
AVAILABLE_BYTES_MIN = 1 << 30


def share_bytes(pids):
    """Memory of processes; what several of them have in common is divided among them."""
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)[1]) * 1024
    return total


def user_seconds(pids):
    """User time of processes, in ticks of the kernel: what is not spent in its calls."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(fields[11]) for fields in stats) / os.sysconf("SC_CLK_TCK")


def socket_bytes():
    """What waits in sockets of TCP."""
    pages = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.M)
    return int(pages[1]) * 4096


def used_bytes():
    """What the machine uses, without what it keeps of files. (MemAvailable takes the inodes of sockets for memory that could be had back.)"""
    memory = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)}
    return memory["MemTotal"] - memory["MemFree"] - memory["Buffers"] - memory["Cached"]


class Meter:
    """Processor time of groups of processes since it was made, or asked last."""

    def __init__(self, groups):
        self.groups = groups
        self._mark()

    def _mark(self):
        self.since = time.monotonic()
        self.before = {name: machine.cpu_seconds(pids) for name, pids in self.groups().items()}

    def seconds(self):
        """Of each group what it used; a process that has ended meanwhile does not count."""
        now = {name: machine.cpu_seconds(pids) for name, pids in self.groups().items()}
        used = {name: now[name] - self.before[name] for name in now}
        elapsed = time.monotonic() - self.since
        self._mark()
        return used, elapsed

    def percent(self):
        """Of each group what it used, in percent of one core."""
        used, elapsed = self.seconds()
        return {name: 100 * seconds / elapsed for name, seconds in used.items()}


class Watch:
    """Looks at the memory of the machine all the time."""

    def __enter__(self):
        self.before = used_bytes()
        self.most = 0
        self.is_over = False
        self.end = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self):
        total = used_bytes_max()
        while not self.end.wait(LOOK_SECONDS):
            used = used_bytes()
            self.most = max(self.most, used - self.before)
            self.is_over |= total - used < AVAILABLE_BYTES_MIN

    def grown_bytes(self):
        """What the machine uses more than before."""
        return used_bytes() - self.before

    def check(self):
        if self.is_over:
            raise machine.Failed("the machine has no more memory")

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()


def used_bytes_max():
    return int(re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)[1]) * 1024
