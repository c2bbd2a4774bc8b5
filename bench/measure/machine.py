"""The machine: its cores, its memory, what runs where, and what a process costs.

The server is pinned to one core and all else (load, handlers, Redis) to another: so each system has the same, and what the load
costs is not taken from what it measures.
"""

import os
import pathlib
import platform
import random
import re
import resource
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOREBAY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/forebay"
TOOLS = ROOT / "target/bench/release"

SERVER_CORE = "0"
OTHER_CORE = "1"
# Where it is not the server that is measured: the system puts processes where there is room.
ANY_CORE = "0,1"

# Below the ports that the kernel gives to connections (net.ipv4.ip_local_port_range).
PORTS = range(20_000, 32_000)

PEERS = ["condure", "pushpin", "nginx", "libnginx-mod-nchan", "redis-server"]


class Absent(Exception):
    """A system that is not installed here: it is passed over."""


class Failed(Exception):
    """A measurement that is worth nothing."""


def free_port():
    """A port that nobody listens on, and that no connection takes meanwhile."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("there is no free port")


def raise_limits():
    """As many descriptors as are allowed; what is started here inherits them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def resident_bytes(pids):
    """Resident memory of processes, by their pages: the counter of /proc/PID/status is off by up to some hundred KiB."""
    total = 0
    for pid in pids:
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(re.search(r"^Rss:\s+(\d+) kB", rollup, re.M)[1]) * 1024
    return total


def slab_bytes():
    """Memory of the kernel's objects: sockets, files, items of epoll. Of the whole machine."""
    return int(re.search(r"^Slab:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text(), re.M)[1]) * 1024


def cpu_seconds(pids):
    """User and system time of processes, of all their threads, to the nanosecond (clock_getcpuclockid(3))."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def children(pid):
    """Processes that a process has started."""
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def package_version(name):
    """The version of a Debian package, without what Debian has added; None if it is not installed."""
    query = ["dpkg-query", "-W", "-f=${db:Status-Status} ${Version}", name]
    state, _, version = subprocess.run(query, capture_output=True, text=True).stdout.partition(" ")
    return re.sub(r"^\d+:|[-+].*$", "", version) if state == "installed" else None


def describe():
    """The machine and the versions of the peers, in a sentence without a date."""
    model = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    memory = int(re.search(r"^MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text(), re.M)[1])
    kernel = re.match(r"[\d.]+", platform.release())[0]
    versions = [f"{name} {version}" for name in PEERS if (version := package_version(name))]
    return (
        f"{os.cpu_count()} cores ({model[1].strip() if model else platform.machine()}), {memory / 2**20:.0f} GB, "
        f"Linux {kernel}; {', '.join(versions)}."
    )
