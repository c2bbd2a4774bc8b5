"""Holds clients and feeds them: the hold extension, end to end, with a channel that lives in memory.

A handler that says `hello` is given requests. It answers one with the head of an event stream and
`ext.hold`, which names channels and a cursor in each; from then on the connection is the edge's alone.
The edge asks one of the handlers that are there for what the channels bring: `feed` for what comes from
now on, `range` for what a client has missed. No handler knows which clients there are.

A client may come as a WebSocket, too: it gets the same events as messages, and what it says comes here as
`message`, with all that a handler needs to know of it. Here each is answered with how far the counter is.

Stop this program and start it again: clients stay connected, are told that the channel was made anew
(a `gap`), and read on. What a WebSocket says meanwhile is answered when the program is back.

    python hold.py --spec ipc:///tmp/edge
    curl -N http://localhost:8000/
    python -m websockets ws://localhost:8000/
"""

import argparse
import json
import time

import tnet
import zmq

NAME = "counter"
CHANNEL = "demo:counter"
EVENTS_KEPT = 1000

parser = argparse.ArgumentParser(description="Holds clients, who read a counter.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
parser.add_argument("--interval", type=float, default=1.0, help="seconds from one count to the next")
options = parser.parse_args()

edge = zmq.Context().socket(zmq.DEALER)
edge.identity = NAME.encode()
edge.connect(options.spec + "-out-stream")

epoch = time.time_ns() // 1_000_000  # a log that is begun anew has a larger one
events = []  # the newest ones: offsets `first` and up
first = 1
is_fed = False


def send(**fields):
    packet = {key.replace("_", "-"): value for key, value in fields.items()}
    edge.send_multipart([b"", b"T" + tnet.dumps({"from": NAME, **packet})])


def head():
    return first + len(events) - 1


def parse(cursor):
    """The two numbers of a cursor; None if it is none."""
    numbers = cursor.decode("ascii", "replace").split("-")
    return tuple(map(int, numbers)) if len(numbers) == 2 and all(n.isdigit() for n in numbers) else None


def hold(request):
    """Answers a request: the client reads on behind the last event that it has, or from the beginning."""
    headers = {name.lower(): value for name, value in request.get("headers", [])}
    cursor = parse(headers.get(b"last-event-id", b"")) or (epoch, 0)
    hold = {"channels": [[CHANNEL, "%d-%d" % cursor]], "keep-alive": 15_000}
    if request["uri"].startswith((b"ws:", b"wss:")):
        hold.update({"format": "ws", "messages": "/", "persistent": True})
        send(id=request["id"], seq=0, ext={"hold": hold}, code=101)
        return
    hold["format"] = "sse"
    headers = [["Content-Type", "text/event-stream"], ["Cache-Control", "no-cache"]]
    send(id=request["id"], seq=0, ext={"hold": hold}, code=200, headers=headers, body="retry: 500\n\n")


def answer(message):
    """Answers what a client has said, in one packet: if this program dies before, another gets the message."""
    said = '{"said":%s,"count":%d}'
    texts = [body for body, attributes in message["bodies"] if not attributes.get("binary")]
    bodies = [said % (json.dumps(text.decode()), head()) for text in texts]
    send(type="hold", id=message["id"], answers=message["number"], bodies=bodies)


def send_after(cursor):
    """Sends what is kept behind a cursor, and says first if something is missing in between."""
    at = cursor[1] if cursor[0] == epoch else 0
    # Who is of an earlier epoch has missed its end, for all we know.
    if at + 1 < first or cursor[0] != epoch:
        at = first - 1
        reason = "trimmed" if cursor[0] == epoch else "recreated"
        if events and cursor != (0, 0):
            after, resume = "%d-%d" % cursor, "%d-%d" % (epoch, first)
            send(type="gap", channel=CHANNEL, after=after, first=resume, reason=reason)
    kept = [[data, {}] for data in events[at + 1 - first :]]
    if kept:
        run = {"channel": CHANNEL, "epoch": epoch, "after": at, "events": kept}
        if cursor == (0, 0) and at == 0:
            run["prev"] = "0-0"
        send(type="events", **run)
    else:
        send_heads()


def send_heads():
    send(type="heads", heads=[[CHANNEL, epoch, head()]])


def receive(packet):
    global is_fed
    kind = packet.get("type", b"")
    if kind == b"" and "method" in packet:
        hold(packet)
    elif kind == b"message":
        answer(packet)
    elif kind == b"feed":
        is_fed = True
        for name, cursor in packet["channels"]:
            if name.decode() == CHANNEL and cursor:
                send_after(parse(cursor))
        send_heads()
    elif kind == b"unfeed":
        is_fed = False
    elif kind == b"range":
        send_after(parse(packet["after"]))


def count():
    global first
    data = '{"count":%d}' % (head() + 1)
    events.append(data)
    if is_fed:
        send(type="events", channel=CHANNEL, epoch=epoch, after=head() - 1, events=[[data, {}]])
    if len(events) > EVENTS_KEPT:
        del events[0]
        first += 1


next_hello = next_count = 0
while True:
    now = time.monotonic()
    if now >= next_hello:
        # I am here for three seconds more; I serve everything, and I feed.
        send(type="hello", ttl=3000, incarnation=epoch, feeds=True, serves=[["*", "/"]])
        if is_fed:
            send_heads()
        next_hello = now + 1
    if now >= next_count:
        count()
        next_count = now + options.interval
    if edge.poll(max(0, int((min(next_hello, next_count) - time.monotonic()) * 1000))):
        receive(tnet.loads(edge.recv_multipart()[1][1:]))
