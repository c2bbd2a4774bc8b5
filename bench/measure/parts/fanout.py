"""Fan-out: one channel, one worker, an event to 1,000 subscribers; `fanout_wide` is the same with 10,000.

"One at a time" is the next event when all have the last: what one delivery costs, and how long until the last has it. "Back to
back" has a window of events outstanding, so that a server may write what is due to a socket in one go.
"""

from .. import fan
from ..results import Column, Goal
from . import in_turn

SECONDS = 1.2
SUBSCRIBERS = 1_000
PAYLOADS = [100, 1_024]
# Events that not all have yet: what a client is behind by is less than the buffer of a connection has room for, in any system.
WINDOWS = {100: 16, 1_024: 4}

ONE = "one at a time"
MANY = "back to back"

COLUMNS = [
    Column("deliveries/s", "deliveries_per_s"),
    Column("server CPU, µs a delivery", "cpu_us"),
    Column("p50 ms", "p50_ms", spread=False),
    Column("p99 ms", "p99_ms", spread=False),
    Column("max ms", "max_ms", spread=False),
    Column("bytes a delivery", "bytes", spread=False),
]


def point(payload, how):
    return f"{payload} B, {how}"


def run(settings, results, subscribers=SUBSCRIBERS):
    if settings.quick:
        subscribers = min(subscribers, 2_000)
    envelopes = fan.Envelopes()

    def measured(start):
        def measure(scene):
            system = start(scene)
            for payload in PAYLOADS:
                posted = envelopes.payload(system, payload)
                for how, option in [(ONE, ["--one-at-a-time"]), (MANY, ["--window", WINDOWS[payload]])]:
                    report = fan.measure(system, subscribers, posted, option, settings)
                    envelopes.learn(system, payload, report)
                    results.add(
                        system.name,
                        point(payload, how),
                        deliveries_per_s=report["deliveries_per_s"],
                        cpu_us=report["server_cpu_us_per_delivery"],
                        p50_ms=report["latency_p50_us"] / 1e3,
                        p99_ms=report["latency_p99_us"] / 1e3,
                        max_ms=report["latency_max_us"] / 1e3,
                        bytes=report["read_bytes_per_delivery"],
                        load_percent=report["generator_busiest_thread_percent"],
                    )

        return measure

    in_turn(settings, results, {name: measured(start) for name, start in fan.ALL.items()})


def tables(results):
    return results.table(COLUMNS, points=[point(payload, how) for payload in PAYLOADS for how in (ONE, MANY)])


def goals(results):
    for payload in PAYLOADS:
        one = results.ratio("cpu_us", point(payload, ONE), fan.FOREBAY, fan.BARE)
        yield Goal(f"CPU a delivery, of the bare loop's: {point(payload, ONE)}", one, 1.25)
        many = results.ratio("cpu_us", point(payload, MANY), fan.FOREBAY, fan.NCHAN)
        yield Goal(f"CPU a delivery, of nchan's: {point(payload, MANY)}", many, 0.7)
