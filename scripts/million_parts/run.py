"""One run: connections are opened, rest, get an event, lose their handlers twice, and get one each time."""

import itertools
import signal
import time

from measure import machine
from measure.machine import Failed

from . import costs
from .clients import Held, Publisher, probe
from .figures import Figures
from .system import HANDLERS, System

# What all read, and what each reads; braces are the number of the connection.
KINDS = {"shared": "all", "own": "own-{n}"}

STEPS = 10
PAYLOAD = "x" * 100

# After the last connection has opened, the memory of all of them may still come and go.
SETTLE_SECONDS = 30
TELL_SECONDS = 60

LOOK_SECONDS = 0.05
# Nobody has got anything for so long: what is missing does not come any more. A feeder tells its heads every ten seconds.
PATIENCE_SECONDS = 60
# What comes twice has come by then.
REPEAT_SECONDS = 15

QUIET_WINDOW_SECONDS = 5
QUIET_WINDOWS = 2
QUIET_SECONDS_MAX = 600


class Run:
    """What belongs to one run."""

    def __init__(self, kind, options, system, watch):
        self.kind, self.options, self.system, self.watch = kind, options, system, watch
        self.figures = Figures(options.count, system.edge_count)
        self.round = itertools.count()
        self.idle_percent = 0.0

    def groups(self):
        return {**self.system.pids(), "clients": self.held.pids}

    def tell(self, text):
        self.watch.check()
        print(f"  {text}", flush=True)

    def open(self):
        """Opens all, a tenth at a time, and tells what each tenth cost: it should be the same."""
        meter, begin = costs.Meter(self.groups), time.monotonic()
        used, reports = {}, []
        for _ in range(STEPS):
            report = self.held.step()
            seconds, _ = meter.seconds()
            used = {name: used.get(name, 0) + more for name, more in seconds.items()}
            reports.append(report)
            each = "  ".join(f"{name} {1e6 * more / max(report['opened'], 1):.0f}" for name, more in seconds.items())
            rate, p99 = report.get("opens_per_s", 0), report.get("open_latency_p99_us", 0) / 1e3
            self.tell(f"{self.held.open:,} open: {rate:,.0f} a second, p99 {p99:.0f} ms, µs a connection: {each}")
        self.figures.opened(time.monotonic() - begin, reports, used)
        if self.held.open != self.options.count:
            raise Failed(f"{self.held.failed:,} connections did not open, {self.held.dropped:,} were lost: {self.held.end()}")

    def rest(self):
        """Nothing but keep-alives."""
        time.sleep(SETTLE_SECONDS)
        self.held.stats()
        meter, left = costs.Meter(self.groups), self.options.hold_minutes * 60
        user = {name: costs.user_seconds(pids) for name, pids in self.groups().items()}
        used, elapsed = {}, 0.0
        while left > 0:
            time.sleep(min(left, TELL_SECONDS))
            left -= TELL_SECONDS
            seconds, window = meter.seconds()
            used = {name: used.get(name, 0) + more for name, more in seconds.items()}
            elapsed += window
            each = "  ".join(f"{name} {100 * more / window:.1f} %" for name, more in seconds.items())
            self.tell(f"resting: {each}")
        percent = {name: 100 * seconds / elapsed for name, seconds in used.items()}
        user = {name: 100 * (costs.user_seconds(pids) - user[name]) / elapsed for name, pids in self.groups().items()}
        self.idle_percent = sum(percent.values())
        before = self.held.events
        report = self.held.stats()
        if self.held.events != before:
            self.figures.fault(f"{self.held.events - before:,} events came while nothing was published")
        self.figures.rested(percent, user, report["read_bytes"] / report["window_s"])

    def memory(self, before):
        """What there is in each place, and how much more than before the first connection."""
        now = self.places()
        self.figures.memory(now, before, self.watch.grown_bytes())
        each = "  ".join(f"{name} {bytes_ / 2**20:,.0f}" for name, bytes_ in now.items())
        self.tell(f"memory, MiB: {each}  machine {self.watch.grown_bytes() / 2**20:,.0f}")

    def places(self):
        shares = {name: costs.share_bytes(pids) for name, pids in self.groups().items()}
        return {**shares, "kernel": machine.slab_bytes(), "sockets": costs.socket_bytes()}

    def channels(self):
        """Those that get an event now: all, or as many as are wanted, spread over all and other ones each time."""
        number = next(self.round)
        if self.kind == "shared":
            return [KINDS["shared"]]
        count = self.options.count
        published = min(count, self.options.publish_channels)
        return [KINDS["own"].format(n=(index * count // published + number) % count) for index in range(published)]

    def event(self, name):
        """One event to each connection, or to each of some channels: all must have it, and none twice."""
        channels = self.channels()
        expected = self.options.count if self.kind == "shared" else len(channels)
        self.held.stats()
        before, meter = self.held.events, costs.Meter(self.groups)
        publisher = Publisher(self.system, channels, PAYLOAD)
        publisher.start()
        curve = self._curve(before, expected)
        publisher.join()
        if publisher.error:
            self.figures.fault(f"{name}: {publisher.error}")
        seconds, _ = meter.seconds()
        time.sleep(REPEAT_SECONDS)
        self.held.stats()
        got = self.held.events - before
        if got != expected:
            self.figures.fault(f"{name}: {got:,} events came instead of {expected:,}")
        waits = [at - publisher.began for at, _ in curve]
        curve = list(zip(waits, (count for _, count in curve)))
        figure = self.figures.event(name, (got, expected), curve, (publisher.took, seconds))
        self.tell(f"{name}: {figure}")

    def _curve(self, before, expected):
        """How many there were when, until all were there or nothing comes any more."""
        curve, last = [], time.monotonic()
        while self.held.events - before < expected and time.monotonic() - last < PATIENCE_SECONDS:
            time.sleep(LOOK_SECONDS)
            count = self.held.events
            self.held.stats()
            if self.held.events > count:
                last = time.monotonic()
                curve.append((last, self.held.events - before))
        return curve

    def restart(self, name, how, at_once):
        """Ends all handlers, one after the other or at once, and starts them again."""
        begin = time.monotonic()
        for numbers in [range(HANDLERS)] if at_once else [[number] for number in range(HANDLERS)]:
            for number in numbers:
                self.system.end_handler(number, how)
            for number in numbers:
                self.system.start_handler(number)
            self._until_quiet(name)
        before = self.held.events
        report = self.held.stats()
        if self.held.events != before:
            self.figures.fault(f"{name}: {self.held.events - before:,} events came that were published before, or twice")
        self.figures.restarted(name, time.monotonic() - begin)
        self.tell(f"{name}: quiet after {time.monotonic() - begin:.0f} s, {report['open']:,} open")

    def _until_quiet(self, name):
        """Waits until no more is used than at rest, for a while."""
        meter, quiet, begin = costs.Meter(self.groups), 0, time.monotonic()
        while quiet < QUIET_WINDOWS:
            time.sleep(QUIET_WINDOW_SECONDS)
            percent = meter.percent()
            quiet = quiet + 1 if sum(percent.values()) <= 1.3 * self.idle_percent + 5 else 0
            if quiet == 0:
                self.tell(f"{name}: " + "  ".join(f"{who} {used:.0f} %" for who, used in percent.items()))
            if time.monotonic() - begin > QUIET_SECONDS_MAX:
                raise Failed(f"{name}: it does not become quiet again")


def measure(kind, options, logs, directory):
    """One run from begin to end; returns its figures."""
    print(f"== {kind}", flush=True)
    logs = logs / kind
    logs.mkdir(parents=True, exist_ok=True)
    counts = sorted({options.count * step // STEPS for step in range(1, STEPS + 1)})
    with costs.Watch() as watch, System(options.count, directory, logs) as system:
        run = Run(kind, options, system, watch)
        run.figures.probed("before", probe(system))
        with Held(system, KINDS[kind], counts) as held:
            run.held = held
            before = run.places()
            run.open()
            run.rest()
            run.memory(before)
            run.figures.probed("beside", probe(system))
            run.event("one event to all")
            run.restart("restart", signal.SIGTERM, at_once=False)
            run.event("after the restart")
            run.restart("kill", signal.SIGKILL, at_once=True)
            run.event("after the kill")
            run.figures.ended(held, watch.most)
            run.tell(f"{held.open:,} open, {held.dropped:,} dropped")
            if error := held.end():
                run.figures.fault(error)
    return run.figures
