"""A small channel beside a large one, and two workers beside one.

The large channel has 10,000 subscribers and is served all the time, one event after the other. The small one has ten, on the
same worker. How long its events take shows whether the worker does the large one's in slices. What carries the small channel's
events (Redis, the handlers, its own publisher and subscribers) gets its core as soon as it wants it: otherwise the load of the
large one, on the same core, would be what is measured. That takes root.

Two workers serve a channel of 1,000 with their own halves of the subscribers. With four cores there are two for them and
two for the rest, and deliveries/s are compared; with fewer only what a delivery costs, which grows if they are in each other's
way.
"""

import os

from .. import fan, load, systems
from ..machine import Failed, OTHER_CORE, SERVER_CORE
from ..results import Column, Goal
from ..systems import ORG
from . import in_turn

SECONDS = 3.0
LARGE, SMALL = 10_000, 10
SMALL_RATE = 50
MEMBERS = 1_000
WINDOW = 16
PAYLOAD = 100
CORES_FOR_TWO = 4

ALONE = "small channel alone"
BESIDE = "small channel beside the large one"
LARGE_ITSELF = "the large one meanwhile"
WORKERS = f"{MEMBERS:,} subscribers, back to back"

COLUMNS = [
    Column("deliveries/s", "deliveries_per_s"),
    Column("server CPU, µs a delivery", "cpu_us"),
    Column("p50 ms", "p50_ms"),
    Column("p99 ms", "p99_ms"),
    Column("max ms", "max_ms"),
]


def has_cores():
    return os.cpu_count() >= CORES_FOR_TWO


def checked(report):
    for fault in ("lost", "repeated", "strayed", "dropped", "failed"):
        if report[fault]:
            raise Failed(f"{report[fault]} {fault}")
    return report


def run(settings, results):
    large = 1_000 if settings.quick else LARGE

    def add(name, point, report):
        results.add(
            name,
            point,
            deliveries_per_s=report["deliveries_per_s"],
            cpu_us=report["server_cpu_us_per_delivery"],
            p50_ms=report["latency_p50_us"] / 1e3,
            p99_ms=report["latency_p99_us"] / 1e3,
            max_ms=report["latency_max_us"] / 1e3,
        )

    def channels(scene):
        server = systems.forebay(scene)
        keys = systems.behind(scene, server, first=True).keys
        common = ["--org", ORG, "--keys", keys, "--payload", PAYLOAD]
        small = ["--subscribers", SMALL, "--rate", SMALL_RATE, "--warmup", 0.5, "--seconds", settings.seconds, *common]
        add("Forebay", ALONE, checked(load.report(load.start("fan", server, *small, first=True))))
        # It begins before and ends after what is measured.
        crowd = ["--subscribers", large, "--one-at-a-time", "--open-rate", fan.OPEN_RATE, *common]
        seconds = settings.seconds + 2 + large / fan.OPEN_RATE
        crowded = load.start("fan", server, *crowd, "--warmup", 0.2, "--seconds", seconds)
        load.wait_for_connections(server, large)
        beside = checked(load.report(load.start("fan", server, *small, first=True)))
        add("Forebay", LARGE_ITSELF, checked(load.report(crowded)))
        add("Forebay", BESIDE, beside)

    def workers(count):
        def measured(scene):
            rest = "2,3" if has_cores() else OTHER_CORE
            core = "0,1" if has_cores() and count == 2 else SERVER_CORE
            server = systems.forebay(scene, workers=count, core=core)
            keys = systems.behind(scene, server, core=rest, redis_core=rest).keys
            options = ["--org", ORG, "--keys", keys, "--payload", PAYLOAD, "--subscribers", MEMBERS, "--window", WINDOW]
            options += ["--seconds", settings.seconds, "--warmup", 0.3, "--threads", 2 if has_cores() else 1]
            report = checked(load.report(load.start("fan", server, *options, core=rest)))
            add(f"Forebay, {count} worker{'s' if count > 1 else ''}", WORKERS, report)

        return measured

    in_turn(settings, results, {"two channels": channels, "1 worker": workers(1), "2 workers": workers(2)})


def tables(results):
    text = results.table(COLUMNS, points=[ALONE, BESIDE, LARGE_ITSELF, WORKERS])
    if not has_cores():
        text += (
            f"\n\n{os.cpu_count()} cores are too few for two workers and their load: both workers shared one, so whether "
            "deliveries/s double could not be seen."
        )
    return text


def goals(results):
    yield Goal("p99 of a small channel beside a large one, ms", results.median("Forebay", BESIDE, "p99_ms"), 5)
    two, one = "Forebay, 2 workers", "Forebay, 1 worker"
    speed = results.ratio("deliveries_per_s", WORKERS, two, one) if has_cores() else None
    yield Goal("deliveries/s of two workers, of one's", speed, 1.8, at_least=True)
