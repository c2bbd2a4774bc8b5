"""An answer in pieces, no faster than the client reads it.

The first packet of a request says how many bytes the edge takes (`credits`). As the client reads, the
edge grants more, in packets to the address that the handler gave as `from`: here a DEALER of that
name. Packets of a session are numbered, in each direction.

    python stream.py --spec ipc:///tmp/edge --bytes 1000000
    curl http://localhost:8000/ | wc -c
"""

import argparse

import sockets
import tnet

NAME = "stream"

parser = argparse.ArgumentParser(description="Answers each request with so many bytes.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
parser.add_argument("--bytes", type=int, default=1_000_000, help="how many")
options = parser.parse_args()

# Credits come in by `stream`.
stream, answers = sockets.connect(options.spec, NAME)
requests = sockets.take_requests(options.spec)
poller = sockets.poller(requests, stream)

sessions = {}  # by id: the first packet, the number of the next one, what is left to send, the credits


def send_packet(request, packet):
    data = b"T" + tnet.dumps({"from": NAME, "id": request["id"], **packet})
    if request.get("router-resp"):
        # Newer edges take answers where credits come from, too: nothing is ever dropped there.
        stream.send_multipart([b"", data])
    else:
        answers.send(request["from"] + b" " + data)


def send(session_id):
    """Sends as much as the credits allow."""
    session = sessions[session_id]
    while session["credits"] > 0 or session["left"] == 0:
        size = min(session["credits"], session["left"], 4096)
        packet = {"seq": session["seq"], "body": b"x" * size}
        if session["seq"] == 0:
            packet["code"] = 200
            packet["headers"] = [["Content-Type", "application/octet-stream"]]
        session["seq"] += 1
        session["left"] -= size
        session["credits"] -= size
        packet["more"] = session["left"] > 0
        send_packet(session["request"], packet)
        if not packet["more"]:
            del sessions[session_id]
            return


def receive(packet):
    """Takes a packet about sessions that have begun."""
    ids = packet["id"] if isinstance(packet["id"], list) else [packet]
    for entry in ids:
        if entry["id"] not in sessions:
            continue
        if packet.get("type") == b"credit":
            sessions[entry["id"]]["credits"] += packet["credits"]
            send(entry["id"])
        elif packet.get("type") in (b"cancel", b"error"):
            # The client has left.
            del sessions[entry["id"]]


while True:
    ready = dict(poller.poll())
    if requests in ready:
        request = tnet.loads(requests.recv()[1:])
        print(request["uri"].decode(), flush=True)
        sessions[request["id"]] = {
            "request": request,
            "seq": 0,
            "left": options.bytes,
            "credits": request["credits"],
        }
        send(request["id"])
    if stream in ready:
        receive(tnet.loads(stream.recv_multipart()[1][1:]))
