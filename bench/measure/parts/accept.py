"""Accepted connections: connect, ask for an event stream, get its head; as fast as the server takes them, 256 at a time.

Edges have a handler to ask, which the bare loop has not. Forebay is measured twice: before the same plain handler as Condure, and
with its own, which verify a token, read the store and hand a hold over. There each connection is on its own channel: the head of a
channel is read ten times a second at most, so a crowd on one would be measured by how it is put together.
"""

import contextlib

from .. import load, systems
from ..machine import Failed
from ..profile import Profile
from ..results import Column, Goal
from ..systems import ORG
from . import in_turn

SECONDS = 0.0
CONNECTIONS = 15_000

PLAIN = "Forebay, plain handler"
OWN = "Forebay, its handlers"
POINT = "connect, GET, head"

COLUMNS = [
    Column("connections/s", "opens_per_s"),
    Column("server CPU, µs a connection", "cpu_us"),
    Column("p50 ms", "p50_ms", spread=False),
    Column("p99 ms", "p99_ms", spread=False),
]


def run(settings, results):
    count = 3_000 if settings.quick else CONNECTIONS

    def measure(name, server, *options):
        with Profile(name, server.pids) if "Forebay" in name else contextlib.nullcontext():
            report = load.run("idle", server, "--count", count, "--rate", 0, "--hold", 0, *options)
        if report["failed"] or report["dropped"]:
            raise Failed(f"{report['failed']} failed, {report['dropped']} dropped")
        results.add(
            name,
            POINT,
            opens_per_s=report["opens_per_s"],
            cpu_us=report["server_cpu_us_per_connection"],
            p50_ms=report["open_latency_p50_us"] / 1e3,
            p99_ms=report["open_latency_p99_us"] / 1e3,
        )

    def plain(name, start):
        def measured(scene):
            server = start(scene)
            systems.peer_handler(scene, server, "hold")
            measure(name, server, "--path", "/all")

        return measured

    def own(scene):
        server = systems.forebay(scene)
        header = systems.authorization(systems.behind(scene, server).keys)
        measure(OWN, server, "--path", f"/events/{ORG}?channel_id=own{{n}}&last_event_id=$", "--header", header)

    def nchan(scene):
        measure("nginx + nchan", systems.nginx(scene), "--path", "/sub?ch=all", "--header", "Accept: text/event-stream")

    in_turn(
        settings,
        results,
        {
            PLAIN: plain(PLAIN, systems.forebay),
            OWN: own,
            "Condure": plain("Condure", systems.condure),
            "nginx + nchan": nchan,
            "bare": lambda scene: measure("bare", systems.bare(scene, "accept"), "--path", "/"),
        },
    )


def tables(results):
    return results.table(COLUMNS)


def goals(results):
    # With its own handlers, on the core of the load, it is they who are measured; the edge's share is in the table.
    speed = results.ratio("opens_per_s", POINT, PLAIN, "bare")
    yield Goal(f"connections/s, of the bare loop's: {PLAIN}", speed, 0.8, at_least=True)
