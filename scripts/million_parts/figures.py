"""The figures of a run, and the table at the end."""

import os
import platform
import re
from pathlib import Path

from measure import machine

from .network import table_entries
from .system import KEEP_ALIVE_SECONDS

PAGE = machine.ROOT / "docs/PERFORMANCE.md"
GB = 1e9

TITLES = {"shared": "all on one channel", "own": "each on its own"}
NAMES = {
    "edges": "edges",
    "handlers": "handlers",
    "redis": "Redis",
    "clients": "clients",
    "kernel": "kernel, both ends: slab",
    "sockets": "kernel, both ends: in sockets",
    "machine": "all that the machine uses more",
}


class Figures:
    """The rows of one run, in the order in which they came, and what was wrong."""

    def __init__(self, count, edges):
        self.count = count
        self.rows = {}
        self.faults = []
        self.add("connections", f"{count:,}")
        self.add("edges, on one port", f"{edges}")
        self.add("keep-alives", f"every {KEEP_ALIVE_SECONDS} s")

    def add(self, row, text):
        self.rows[row] = text

    def fault(self, text):
        """Something that must not be."""
        self.faults.append(text)
        print(f"  FAULT: {text}", flush=True)

    def probed(self, when, report):
        times = [report[f"latency_{quantile}_us"] / 1e3 for quantile in ("p50", "p99", "max")]
        row = {"before": "event on another channel, nobody else there", "beside": "the same beside all of them"}[when]
        self.add(f"{row}: p50 / p99 / max", " / ".join(f"{ms:.1f}" for ms in times) + " ms")
        for what in ("lost", "repeated", "dropped"):
            if report[what]:
                self.fault(f"{row}: {report[what]} {what}")

    def opened(self, seconds, reports, used):
        rates = [report["opens_per_s"] for report in reports if "opens_per_s" in report]
        self.add("time to open", f"{seconds:.0f} s")
        self.add("opened a second (first tenth, last tenth)", f"{self.count / seconds:,.0f} ({rates[0]:,.0f}, {rates[-1]:,.0f})")
        for name, more in used.items():
            self.add(f"CPU to open one: {NAMES[name]}", f"{1e6 * more / self.count:.0f} µs")

    def rested(self, percent, user, read_bytes_per_s):
        for name, share in percent.items():
            self.add(f"CPU while idle: {NAMES[name]}", f"{share:.1f} % of a core, {user[name]:.1f} % not in the kernel")
        self.add("keep-alives in that time", f"{read_bytes_per_s / 1e3:.0f} kB/s")

    def memory(self, now, before, grown):
        """What there is more than before the first connection."""
        for name, size in {**{name: size - before[name] for name, size in now.items()}, "machine": grown}.items():
            self.add(f"memory: {NAMES[name]}", f"{size / GB:.2f} GB, {size / self.count:,.0f} B a connection")

    def event(self, name, counts, curve, costs):
        """Returns what it is in a few words."""
        publish_seconds, used = costs
        got, expected = counts
        reached = {share: next((at for at, count in curve if count >= share * expected), None) for share in (0.5, 0.99, 1.0)}
        times = " / ".join("–" if at is None else f"{at:.2f}" for at in reached.values()) + " s"
        self.add(f"{name}: deliveries", f"{got:,} of {expected:,}")
        self.add(f"{name}: half / 99 % / all have it after", times)
        if publish_seconds > 1 and got > 1:
            self.add(f"{name}: published in", f"{publish_seconds:.1f} s")
        each = " / ".join(f"{1e6 * seconds / expected:.1f}" for seconds in used.values())
        self.add(f"{name}: CPU for each, {' / '.join(NAMES[who] for who in used)}", f"{each} µs")
        return f"{got:,} of {expected:,}, half / 99 % / all after {times}, published in {publish_seconds:.2f} s, CPU for each {each} µs"

    def restarted(self, name, seconds):
        what = {"restart": "each handler ended and started", "kill": "all handlers killed and started"}[name]
        self.add(f"{what}: all is quiet after", f"{seconds:.0f} s")

    def ended(self, held, most):
        self.add("dropped connections", f"{held.dropped:,}")
        self.add("memory: the most that the machine used more", f"{most / GB:.2f} GB")
        if held.dropped or held.open != self.count:
            self.fault(f"{held.dropped:,} connections were dropped, {held.open:,} are open")


def table(columns):
    """A row for each figure, a column for each run."""
    rows = dict.fromkeys(row for figures in columns.values() for row in figures.rows)
    lines = [f"| | {' | '.join(TITLES[kind] for kind in columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for row in rows:
        lines.append(f"| {row} | {' | '.join(figures.rows.get(row, '–') for figures in columns.values())} |")
    return "\n".join(lines) + f"\n\n{_machine()}"


def _machine():
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = int(re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)[1])
    redis = machine.package_version("redis-server")
    return (
        f"{os.cpu_count()} cores ({model[1].strip() if model else platform.machine()}), {memory / 2**20:.0f} GB, "
        f"Linux {re.match(r'[0-9.]+', platform.release())[0]} with room for {table_entries():,} sockets in its table of connections, "
        f"Redis {redis}; clients, edges, handlers and Redis share them."
    )


def write(text):
    """Puts the table between its markers."""
    page = PAGE.read_text()
    pattern = re.compile(r"(<!-- million -->\n).*?(<!-- /million -->)", re.S)
    if not pattern.search(page):
        raise machine.Failed(f"{PAGE}: there is no place for the table")
    PAGE.write_text(pattern.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page))
