"""A network of our own, with a table of connections that is large enough.

Linux finds the socket of each packet in a table whose size was fixed at boot by the machine's memory: 262,144 places for 24 GB. Two
million sockets, as both ends are here, share a place by eight, and each packet looks through them, in memory that no cache
holds. A network namespace may have a table of its own (net.ipv4.tcp_child_ehash_entries). It takes the rights of root; without them
the machine's is used, and shows.
"""

import ctypes
import os
import subprocess
from pathlib import Path

CLONE_NEWNET = 0x40000000

SYSCTL = Path("/proc/sys/net/ipv4")
# What the kernel takes at most.
ENTRIES_MAX = 1 << 24


def enter(count):
    """Moves this process, and all that it starts from now on, into a network of its own, if it may. Must be called before it has threads."""
    if os.geteuid() != 0:
        return
    # Both ends, and half of the places empty.
    entries = min(1 << (4 * count - 1).bit_length(), ENTRIES_MAX)
    try:
        # Opened before, it is the old network's afterwards, too.
        with open(SYSCTL / "tcp_child_ehash_entries", "r+b", buffering=0) as wanted:
            before = wanted.read()
            wanted.seek(0)
            wanted.write(str(entries).encode())
            failed = ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0
            wanted.seek(0)
            wanted.write(before)
    except OSError:
        return
    if not failed:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def table_entries():
    """How many places the table of connections has."""
    # A network that has no table of its own says so by the sign.
    return abs(int((SYSCTL / "tcp_ehash_entries").read_text()))
