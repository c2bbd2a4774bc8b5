"""What a unit of work costs when there is more of everything: with 1,000 connections and with 19,000, and with 10 channels in the
store and with 100,000.

The connections beside which the work is done are event streams, each on its own channel. The work is the same each time: events
to 1,000 more on one channel, publishes to a channel nobody reads, connections that come and go. What counts is the edge's
processor time; of publishes beside many channels that of edge, handlers and Redis together.

Fan-out to own channels touches 19 times the memory of 19 times the sockets, whose kernel objects no cache holds any more. That
is the kernel's share, so it is compared with a bare loop that has as many.
"""

from .. import fan, load, machine, systems
from ..machine import Failed
from ..redis_script import replay
from ..results import Column, Goal
from ..systems import ORG
from . import in_turn
from .publish import HEARD, append_of

SECONDS = 1.5
# One takes more than a minute.
RUNS = 3
FEW, MANY = 1_000, 19_000
MEMBERS = 1_000
CHANNELS_FEW, CHANNELS_MANY = 10, 100_000
UNDER_WAY = 256
ARRIVALS = 1_000
ARRIVALS_TURNS = 3
WINDOW = 16
PAYLOAD = 100

ONE = "a delivery, one at a time"
BACK_TO_BACK = "a delivery, back to back"
WIDE = "a delivery to each connection"
PUBLISH = "a publish, edge"
ACCEPT = "a connection that comes and goes"
STORED = "a publish, edge, handlers and Redis"

COLUMNS = [Column("CPU µs", "cpu_us")]


def beside(count):
    return f"{count:,} connections"


def among(count):
    return f"{count:,} channels"


def run(settings, results):
    few, many = (200, 2_000) if settings.quick else (FEW, MANY)
    channels_many = 2_000 if settings.quick else CHANNELS_MANY

    def connections(name, count):
        def measured(scene):
            server = systems.forebay(scene)
            behind = systems.behind(scene, server)
            own = ["--path", f"/events/{ORG}?channel_id=own{{n}}&last_event_id=$"]
            header = ["--header", systems.authorization(behind.keys)]
            # The subscribers of the measured channel are among those that are counted.
            resting = max(1, count - MEMBERS)
            with load.Held(server, "--count", resting, *own, *header) as held:
                held.step()
                work(name, server, behind, header)
                held.stats()

        return measured

    def work(name, server, behind, header):
        forebay = fan.Fan(fan.FOREBAY, server, ["--org", ORG, "--keys", behind.keys])
        for point, how in [(ONE, ["--one-at-a-time"]), (BACK_TO_BACK, ["--window", WINDOW])]:
            report = fan.measure(forebay, MEMBERS, PAYLOAD, how, settings)
            results.add(name, point, cpu_us=report["server_cpu_us_per_delivery"])
        results.add(name, PUBLISH, cpu_us=publishes(server, behind)["server_cpu_us_per_request"])
        path = ["--path", f"/events/{ORG}?channel_id=more&last_event_id=$", *header]
        begin = machine.cpu_seconds(server.pids)
        for _ in range(ARRIVALS_TURNS):
            report = load.run("idle", server, "--count", ARRIVALS, "--rate", 0, "--hold", 0, *path)
            if report["failed"] or report["dropped"]:
                raise Failed(f"{report['failed']} failed, {report['dropped']} dropped")
        took = machine.cpu_seconds(server.pids) - begin
        results.add(name, ACCEPT, cpu_us=took / (ARRIVALS * ARRIVALS_TURNS) * 1e6)

    def publishes(server, behind):
        options = ["--org", ORG, "--keys", behind.keys, "--connections", 64, "--channels", 10, "--payload", PAYLOAD]
        report = load.run("publish", server, *options, "--seconds", settings.seconds, "--warmup", 0.3)
        if report["statuses"].keys() != {"200"}:
            raise Failed(f"not all events were stored: {report['statuses']}")
        return report

    def wide(name, count, system):
        def measured(scene):
            started = fan.ALL[system](scene)
            report = fan.measure(started, count, PAYLOAD + (200 if started.is_bare else 0), ["--one-at-a-time"], settings)
            results.add(f"{system}, {name}", WIDE, cpu_us=report["server_cpu_us_per_delivery"])

        return measured

    def stored(name, count):
        def measured(scene):
            server = systems.forebay(scene)
            behind = systems.behind(scene, server)
            append = append_of(server, behind)
            channels = [b"chan-%0*d" % (len(HEARD) - 5, number) for number in range(count)]
            replay(behind.redis_port, append, channels, UNDER_WAY, 0, count)
            pids = [*server.pids, *behind.pids]
            server.pids = pids
            results.add(name, STORED, cpu_us=publishes(server, behind)["server_cpu_us_per_request"])

        return measured

    in_turn(
        settings,
        results,
        {
            beside(few): connections(beside(FEW), few),
            beside(many): connections(beside(MANY), many),
            **{
                f"{system}, {beside(count)}": wide(beside(label), count, system)
                for system in (fan.FOREBAY, fan.BARE)
                for count, label in ((few, FEW), (many, MANY))
            },
            among(CHANNELS_FEW): stored(among(CHANNELS_FEW), CHANNELS_FEW),
            among(channels_many): stored(among(CHANNELS_MANY), channels_many),
        },
    )


def tables(results):
    return results.table(COLUMNS, "CPU of")


def goals(results):
    for point in (ONE, BACK_TO_BACK, PUBLISH, ACCEPT):
        grown = results.ratio("cpu_us", point, beside(MANY), beside(FEW))
        yield Goal(f"{point}: {beside(MANY)}, of that at {beside(FEW)}", grown, 1.1)
    grown = [results.ratio("cpu_us", WIDE, f"{s}, {beside(MANY)}", f"{s}, {beside(FEW)}") for s in (fan.FOREBAY, fan.BARE)]
    if all(grown):
        yield Goal(f"{WIDE}: growth, of the bare loop's growth", grown[0] / grown[1], 1.1)
    grown = results.ratio("cpu_us", STORED, among(CHANNELS_MANY), among(CHANNELS_FEW))
    yield Goal(f"{STORED}: {among(CHANNELS_MANY)}, of that at {among(CHANNELS_FEW)}", grown, 1.1)
