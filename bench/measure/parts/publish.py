"""The way of an event: from the publisher to the subscriber, and into the store.

Appends through edge, handlers and Redis are compared with those that Redis does alone, of the same script with as many under way.
The processes are put where there is room; Redis has a core for itself both times, as far as two cores go.

Latency is taken at a tenth of what was reached, 64 channels with a subscriber each, and compared with the bare loop's at the
same rate: that is the way from a client to a server and back to another.
"""

from .. import load, systems
from ..machine import ANY_CORE, Failed, OTHER_CORE, SERVER_CORE
from ..redis_script import hear, replay
from ..results import Column, Goal
from ..systems import ORG, Server
from . import in_turn

SECONDS = 2.0
CHANNELS = 64
CONNECTIONS = 64
PAYLOAD = 100
BATCHES = [1, 16]
# What is heard is of a channel whose name is as long as those of the others.
HEARD_PREFIX, HEARD = "bench-00000", b"bench-000000"

REDIS = "Forebay, Redis"
EMBEDDED = "Forebay, embedded"
ALONE = "Redis alone"
LATENCY = "publish → deliver, a tenth of the appends/s"

COLUMNS = [Column("events/s", "events_per_s"), Column("p50 µs", "p50_us"), Column("p99 µs", "p99_us")]


def appends(batch):
    return f"appends, {CONNECTIONS} requests under way" + (f", {batch} events each" if batch > 1 else "")


def run(settings, results):
    def capacity(name, server, keys):
        """As many events a second as are taken, one each request and several."""
        for batch in BATCHES:
            options = ["--org", ORG, "--keys", keys, "--channels", CHANNELS, "--connections", CONNECTIONS]
            options += ["--payload", PAYLOAD, "--batch", batch, "--seconds", settings.seconds, "--warmup", 0.5]
            report = load.run("publish", server, *options, core=ANY_CORE)
            if report["statuses"].keys() != {"200"} or report["refused_events_of_batches"] or report["failed"]:
                raise Failed(f"not all events were stored: {report['statuses']}")
            figures = {"p50_us": report["latency_p50_us"], "p99_us": report["latency_p99_us"]}
            results.add(name, appends(batch), events_per_s=report["events_per_s"], **figures)

    def latency(name, server, options, rate, count):
        options = [*options, "--subscribers", count, "--channels", count, "--payload", PAYLOAD, "--rate", rate]
        report = load.run("fan", server, *options, "--seconds", settings.seconds, "--warmup", 0.5, core=ANY_CORE)
        if report["lost"] or report["repeated"] or report["failed"] or report["dropped"]:
            raise Failed(f"{name}: {report['lost']} lost, {report['repeated']} repeated, {report['failed']} failed")
        figures = {"p50_us": report["latency_p50_us"], "p99_us": report["latency_p99_us"]}
        results.add(name, LATENCY, events_per_s=report["publishes_per_s"], **figures)

    def tenth():
        return (results.median(REDIS, appends(1), "events_per_s") or 10_000) / 10

    def with_redis(scene):
        server = systems.forebay(scene, core=ANY_CORE)
        behind = systems.behind(scene, server, core=ANY_CORE)
        capacity(REDIS, server, behind.keys)
        latency(REDIS, server, ["--org", ORG, "--keys", behind.keys], tenth(), CHANNELS)

    def embedded(scene):
        server, keys = systems.up(scene, core=ANY_CORE)
        capacity(EMBEDDED, server, keys)
        latency(EMBEDDED, server, ["--org", ORG, "--keys", keys], tenth(), CHANNELS)

    def alone(scene):
        port, append = heard_append(scene)
        channels = [b"bench-%06d" % number for number in range(CHANNELS)]
        for batch in BATCHES:
            rate = replay(port, append, channels, CONNECTIONS * batch, settings.seconds)
            results.add(ALONE, appends(batch), events_per_s=rate)

    def bare(scene):
        options = ["--subscribe", "/", "--publish", "/", "--body", "raw"]
        latency("bare", systems.bare(scene, "fan"), options, tenth(), 1)

    in_turn(settings, results, {REDIS: with_redis, EMBEDDED: embedded, ALONE: alone, "bare": bare})


def heard_append(scene):
    """A Redis with handlers that have nothing to do any more, and what an append is to it."""
    server = systems.forebay(scene, core=SERVER_CORE)
    behind = systems.behind(scene, server, core=SERVER_CORE, redis_core=OTHER_CORE)
    return behind.redis_port, append_of(server, behind)


def append_of(server: Server, behind):
    """What an append is to Redis."""
    options = ["--org", ORG, "--keys", behind.keys, "--channel-prefix", HEARD_PREFIX, "--connections", 1]
    options += ["--payload", PAYLOAD, "--seconds", 0.1, "--warmup", 0]
    return hear(behind.redis_port, lambda: load.run("publish", server, *options), HEARD)


def tables(results):
    return results.table(COLUMNS, points=[*map(appends, BATCHES), LATENCY])


def goals(results):
    for batch in BATCHES:
        speed = results.ratio("events_per_s", appends(batch), REDIS, ALONE)
        yield Goal(f"events/s, of what Redis does alone: {appends(batch)}", speed, 0.7, at_least=True)
    for system in (REDIS, EMBEDDED):
        for figure, bound in [("p50_us", 1_000), ("p99_us", 5_000)]:
            above = results.difference(figure, LATENCY, system, "bare")
            yield Goal(f"{figure[:3]} of {LATENCY}, µs above the bare loop: {system}", above, bound)
