"""Memory of a connection: the slope between two sizes, so that what a process costs by itself does not count.

User memory is that of the server's processes. Kernel memory is the slab of the whole machine and has both ends of each
connection in it; what else happens on the machine moves it.
"""

from .. import load, systems
from ..machine import resident_bytes, slab_bytes
from ..results import Column, Goal
from ..systems import ORG
from . import in_turn

SECONDS = 0.0
RUNS = 1
FEW, MANY = 5_000, 19_000
FIRST = 100
# A server gives memory back when it has the time; one that keeps it keeps it for longer than this.
LEAVE_SECONDS_MAX = 8
OPEN_RATE = 8_000

SILENT = "before a request"
KEEP_ALIVE = "keep-alive, between requests"
SHARED = "SSE, one channel"
OWN = "SSE, own channels"
PLAIN = "SSE, plain ZHTTP session"
SOCKET = "WebSocket"
SOCKET_PLAIN = "WebSocket, plain ZHTTP session"

COLUMNS = [
    Column("server, bytes a connection", "user_bytes"),
    Column("kernel, both ends", "kernel_bytes"),
    Column("all left / before", "left_ratio"),
    Column("handlers and Redis, bytes a connection", "behind_bytes"),
]


def measure(settings, results, name, point, server, options, behind=()):
    """Opens few and many connections of one kind, and closes them."""
    few, many = (500, 2_000) if settings.quick else (FEW, MANY)
    # What a process touches for the first time, its code above all, is no matter of how many connections there are.
    with load.Held(server, "--count", FIRST, *options) as first:
        first.step()
    before = load.settled_bytes(server.pids)
    points = []
    with load.Held(server, "--count", f"{few},{many}", "--rate", OPEN_RATE, *options) as held:
        for _ in range(2):
            held.step()
            points.append((load.settled_bytes(server.pids), slab_bytes(), resident_bytes(behind)))
        held.stats()
    after = load.settled_bytes(server.pids, LEAVE_SECONDS_MAX, below=before * 1.1)
    slopes = [(many_of - few_of) / (many - few) for few_of, many_of in zip(*points)]
    results.add(
        name,
        point,
        user_bytes=slopes[0],
        kernel_bytes=slopes[1],
        left_ratio=after / before,
        behind_bytes=slopes[2] if behind else None,
    )


def subscribe_message(channel):
    return f'{{"id":1,"type":"subscribe","channel":"{channel}","cursor":"$"}}'


def run(settings, results):
    def plain(name, start):
        def hello(point, options):
            def measured(scene):
                server = start(scene)
                systems.peer_handler(scene, server, "hello-stream")
                measure(settings, results, name, point, server, options)

            return measured

        def hold(point, options):
            def measured(scene):
                server = start(scene)
                systems.peer_handler(scene, server, "hold")
                measure(settings, results, name, point, server, options)

            return measured

        return {
            f"{name}: {SILENT}": hello(SILENT, ["--silent"]),
            f"{name}: {KEEP_ALIVE}": hello(KEEP_ALIVE, ["--keep-alive", "--path", "/"]),
            f"{name}: {PLAIN}": hold(PLAIN, ["--path", "/all"]),
            f"{name}: {SOCKET_PLAIN}": hold(SOCKET_PLAIN, ["--path", "/all", "--websocket"]),
        }

    def held(point, path, *options):
        def measured(scene):
            server = systems.forebay(scene)
            behind = systems.behind(scene, server)
            header = ["--header", systems.authorization(behind.keys)]
            options_of_all = ["--path", path, *header, *options]
            measure(settings, results, "Forebay", point, server, options_of_all, behind.pids)

        return f"Forebay: {point}", measured

    def nchan(point, *options):
        def measured(scene):
            accept = ["--header", "Accept: text/event-stream"] if point in (SHARED, OWN) else []
            measure(settings, results, "nginx + nchan", point, systems.nginx(scene), [*options, *accept])

        return f"nginx + nchan: {point}", measured

    socket = ["--websocket", "--message", subscribe_message("shared"), "--expect", '"type":"answer"']
    in_turn(
        settings,
        results,
        {
            **plain("Forebay", systems.forebay),
            **dict(
                [
                    held(SHARED, f"/events/{ORG}?channel_id=shared&last_event_id=$"),
                    held(OWN, f"/events/{ORG}?channel_id=own{{n}}&last_event_id=$"),
                    held(SOCKET, f"/ws/{ORG}", *socket),
                ]
            ),
            **plain("Condure", systems.condure),
            **dict(
                [
                    nchan(SILENT, "--silent"),
                    nchan(KEEP_ALIVE, "--keep-alive", "--path", "/hello"),
                    nchan(SHARED, "--path", "/sub?ch=shared"),
                    nchan(OWN, "--path", "/sub?ch=own{n}"),
                    nchan(SOCKET, "--path", "/sub?ch=shared", "--websocket"),
                ]
            ),
        },
    )


def tables(results):
    return results.table(COLUMNS, points=[SILENT, KEEP_ALIVE, SHARED, OWN, PLAIN, SOCKET, SOCKET_PLAIN])


def goals(results):
    for point, bound in [(SHARED, 256), (SILENT, 192), (KEEP_ALIVE, 192), (SOCKET, 320)]:
        yield Goal(f"bytes a connection: {point}", results.median("Forebay", point, "user_bytes"), bound)
    for point in [SILENT, KEEP_ALIVE, SHARED, OWN, PLAIN, SOCKET]:
        yield Goal(f"resident, all left / before: {point}", results.median("Forebay", point, "left_ratio"), 1.1)
