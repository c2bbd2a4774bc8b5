"""Holds event streams by plain ZHTTP: this process knows its clients, and hears that they are there.

Within 45 seconds, and again and again, an edge sends a `keep-alive` for the sessions that it still has:
one packet with a list of ids. Here each is answered with an event to all of them, again in one packet with
a list. That also tells the edge that the handler is there: it ends a session whose handler is silent for a
minute. The other way round, a client that no keep-alive has named for a minute is taken to be gone.

Stop this program, and its clients are lost; `hold.py` shows how to do without this list.

    python keep_alive.py --spec ipc:///tmp/edge
    curl -N http://localhost:8000/
"""

import argparse
import time

import sockets
import tnet

NAME = "keep-alive"

parser = argparse.ArgumentParser(description="Holds clients, who get an event whenever the edge asks for them.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
parser.add_argument("--expiry", type=float, default=60.0, help="seconds of silence after which a client is gone")
options = parser.parse_args()

# What the edge says about sessions comes to the address that `from` gives.
stream, answers = sockets.connect(options.spec, NAME)
requests = sockets.take_requests(options.spec)
poller = sockets.poller(requests, stream)

sessions = {}  # by edge and id: the number of the next packet, and when it expires


def send(edge, ids, **packet):
    """Sends one packet to sessions of one edge; each has its own number in it."""
    entries = []
    for id in ids:
        session = sessions[edge, id]
        entries.append({"id": id, "seq": session["seq"]})
        session["seq"] += 1
    answers.send(edge + b" T" + tnet.dumps({"from": NAME, "id": entries, **packet, "more": True}))


def hold(request):
    edge, id = request["from"], request["id"]
    sessions[edge, id] = {"seq": 0, "expires": time.monotonic() + options.expiry}
    headers = [["Content-Type", "text/event-stream"], ["Cache-Control", "no-cache"]]
    send(edge, [id], code=200, headers=headers, body=": held\n\n")
    print("held", id.decode(), flush=True)


def receive(packet):
    """Takes a packet about sessions that have begun: a list of ids, or one alone."""
    edge, kind = packet["from"], packet.get("type")
    ids = [entry["id"] for entry in packet["id"]] if isinstance(packet["id"], list) else [packet["id"]]
    known = [id for id in ids if (edge, id) in sessions]
    if kind in (b"cancel", b"error"):
        for id in known:
            del sessions[edge, id]
            print("left", id.decode(), flush=True)
        return
    for id in known:
        sessions[edge, id]["expires"] = time.monotonic() + options.expiry
    # Credits need no count here: at most one small event is on its way to a client.
    if kind == b"keep-alive" and known:
        print("alive", *(id.decode() for id in known), flush=True)
        send(edge, known, body="event: alive\ndata: %d\n\n" % len(sessions))


def expire():
    for key in [key for key, session in sessions.items() if session["expires"] <= time.monotonic()]:
        del sessions[key]
        print("expired", key[1].decode(), flush=True)


while True:
    expiries = [session["expires"] for session in sessions.values()]
    timeout = max(0, (min(expiries) - time.monotonic()) * 1000 + 1) if expiries else None
    ready = dict(poller.poll(timeout))
    if requests in ready:
        hold(tnet.loads(requests.recv()[1:]))
    if stream in ready:
        receive(tnet.loads(stream.recv_multipart()[1][1:]))
    expire()
