"""Requests through an edge and a handler: requests/s with the edge on one core, and what a request costs it.

`bare` answers by itself and is the limit; nginx does too. With one connection there is one request at a time, and what is
measured is wake-ups.
"""

import contextlib

from .. import load, systems
from ..machine import Failed
from ..profile import Profile
from ..results import Column, Goal
from . import in_turn

SECONDS = 2.0
CONNECTIONS = [1, 64, 256]

COLUMNS = [
    Column("requests/s", "requests_per_s"),
    Column("server CPU, µs a request", "cpu_us"),
    Column("p50 µs", "p50_us", spread=False),
    Column("p99 µs", "p99_us", spread=False),
]


def point(connections):
    return f"{connections} connection{'s' if connections > 1 else ''}"


def run(settings, results):
    def measure(name, server, path="/"):
        for connections in CONNECTIONS:
            seconds = ["--seconds", settings.seconds, "--warmup", 0.3]
            running = load.start("requests", server, "--path", path, "--connections", connections, *seconds)
            with Profile(f"{name}, {point(connections)}", server.pids) if "Forebay" in name else contextlib.nullcontext():
                report = load.report(running)
            if report["statuses"].keys() != {"200"} or report["failed"]:
                raise Failed(f"not all requests were answered: {report['statuses']}, {report['failed']} failed")
            results.add(
                name,
                point(connections),
                requests_per_s=report["requests_per_s"],
                cpu_us=report["server_cpu_us_per_request"],
                p50_us=report["latency_p50_us"],
                p99_us=report["latency_p99_us"],
                load_percent=report["generator_busiest_thread_percent"],
            )

    def edge(name, start, mode):
        def measured(scene):
            server = start(scene, mode)
            systems.peer_handler(scene, server, f"hello-{mode}")
            measure(name, server)

        return measured

    in_turn(
        settings,
        results,
        {
            "Forebay, stream": edge("Forebay, stream", systems.forebay, "stream"),
            "Condure, stream": edge("Condure, stream", systems.condure, "stream"),
            "Forebay, req": edge("Forebay, req", systems.forebay, "req"),
            "Condure, req": edge("Condure, req", systems.condure, "req"),
            "nginx, static": lambda scene: measure("nginx, static", systems.nginx(scene), "/hello"),
            "bare": lambda scene: measure("bare", systems.bare(scene, "hello")),
        },
    )


def tables(results):
    return results.table(COLUMNS, points=[point(connections) for connections in CONNECTIONS])


def goals(results):
    for mode in ("stream", "req"):
        us, them = f"Forebay, {mode}", f"Condure, {mode}"
        for connections in CONNECTIONS[1:]:
            what = f"{mode} mode, {point(connections)}"
            cpu = results.ratio("cpu_us", point(connections), us, them)
            speed = results.ratio("requests_per_s", point(connections), us, them)
            yield Goal(f"CPU a request, of Condure's: {what}", cpu, 0.5)
            yield Goal(f"requests/s, of Condure's: {what}", speed, 2, at_least=True)
