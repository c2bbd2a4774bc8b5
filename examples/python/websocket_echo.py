"""Says to each WebSocket what it says: acceptance, messages in pieces, credits both ways, pings and closes.

A handshake is a request with a `ws` or `wss` URI; an answer of 101 accepts it. From then on both sides send
pieces of messages, all but the last of a message with `more`, and neither sends more bytes than it was
granted credits for. Here a piece goes back as soon as it has come, if the edge takes it; else it waits, and
its client gets no new credits for it. So a client that does not read is not read from either, and no more
than `--credits` bytes wait for it here.

    python websocket_echo.py --spec ipc:///tmp/edge
    python -m websockets ws://localhost:8000/

Condure leaves pings to the handler. Forebay answers them itself, and tells no handler that does not ask for it.
"""

import argparse
import collections
import os
import time

import sockets
import tnet
import zmq

# Seconds without a word about a session after which its client is taken to be gone.
SILENCE_MAX = 60
# Packets taken from one socket before the other has its turn.
PACKETS_PER_TURN_MAX = 100

parser = argparse.ArgumentParser(description="Sends back what WebSockets say.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
parser.add_argument("--credits", type=int, default=1 << 20, help="bytes that each client may have on their way to here")
options = parser.parse_args()

name = "websocket-echo-%d" % os.getpid()
stream, answers = sockets.connect(options.spec, name)
# A PUB drops what its queue does not take. Credits already bound what is on its way, so the queues need no bound.
stream.sndhwm = answers.sndhwm = 0
requests = sockets.take_requests(options.spec)
poller = sockets.poller(requests, stream)

sessions = {}  # by edge and id


class Session:
    """One WebSocket."""

    def __init__(self, request):
        self.edge, self.id = request["from"], request["id"]
        self.is_routed = request.get("router-resp", False)
        self.next_in, self.next_out = request.get("seq", 0) + 1, 0
        self.credits = request.get("credits", 0)  # bytes that the edge takes
        self.piece_min = max(1, self.credits // 2)  # so that a message does not go in crumbs, as credits come in
        self.owed = 0  # bytes that have gone back, and may come again
        self.waiting = collections.deque()  # what has not gone back yet
        self.hear()

    def hear(self):
        self.expires = time.monotonic() + SILENCE_MAX

    def number(self):
        self.next_out += 1
        return self.next_out - 1

    def send(self, **packet):
        send(self.edge, self.is_routed, id=self.id, seq=self.number(), **packet)

    def receive(self, packet):
        kind, body = packet.get("type"), packet.get("body", b"")
        self.credits += packet.get("credits", 0)
        if kind is None:
            content_type, more = packet.get("content-type", b"text"), packet.get("more", False)
            self.waiting.append({"content-type": content_type, "body": body, "more": more})
        elif kind == b"ping":
            self.waiting.append({"type": "pong", "body": body})
        elif kind == b"close":
            code = {"code": packet["code"]} if "code" in packet else {}
            self.waiting.append({"type": "close", **code, "body": body})
        else:
            self.owed += len(body)
        self.send_waiting()

    def send_waiting(self):
        """Sends back what the credits allow, and grants credits for it."""
        while self.waiting:
            packet = self.waiting[0]
            kind, size = packet.get("type"), len(packet["body"])
            if kind == "close":
                # It costs no credits, and is the last word.
                self.send(**packet)
                del sessions[self.edge, self.id]
                return
            if size > self.credits:
                # A piece can be cut anywhere, a pong cannot.
                if kind == "pong" or self.credits < self.piece_min:
                    break
                body, size = packet["body"], self.credits
                self.send(**{**packet, "body": body[:size], "more": True})
                packet["body"] = body[size:]
            else:
                self.send(**packet)
                self.waiting.popleft()
            self.credits -= size
            self.owed += size
        # Not for every few bytes: the edge has half of the credits still.
        if self.owed > options.credits // 2:
            self.send(type="credit", credits=self.owed)
            self.owed = 0


def send(edge, is_routed, **packet):
    data = b"T" + tnet.dumps({"from": name, **packet})
    if is_routed:
        # Newer edges take answers where their own packets come from.
        stream.send_multipart([b"", data])
    else:
        answers.send(edge + b" " + data)


def begin(request):
    session = Session(request)
    if not request["uri"].startswith((b"ws://", b"wss://")):
        headers = [["Content-Type", "text/plain"], ["Connection", "Upgrade"], ["Upgrade", "websocket"]]
        session.send(code=426, headers=headers, body="speak WebSocket, please\n")
        return
    sessions[session.edge, session.id] = session
    session.send(code=101, reason="Switching Protocols", credits=options.credits)


def receive(packet):
    """Takes a packet about sessions that have begun: a list of ids, or one alone."""
    edge, kind, alive = packet["from"], packet.get("type"), []
    for entry in packet["id"] if isinstance(packet["id"], list) else [packet]:
        session = sessions.get((edge, entry["id"]))
        if session is None:
            continue
        if kind in (b"cancel", b"error"):
            del sessions[edge, session.id]
        elif entry.get("seq", session.next_in) != session.next_in:
            # A packet was lost, and with it a piece of a message.
            session.send(type="cancel")
            del sessions[edge, session.id]
        else:
            session.next_in += 1
            session.hear()
            if kind == b"keep-alive":
                alive.append(session)
            else:
                session.receive(packet)
    if alive:
        entries = [{"id": session.id, "seq": session.number()} for session in alive]
        send(edge, alive[0].is_routed, id=entries, type="keep-alive")


def take(socket, handle):
    """Takes what has come by a socket, but not so much that the other one has to wait for long."""
    for _ in range(PACKETS_PER_TURN_MAX):
        try:
            parts = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        handle(tnet.loads(parts[-1][1:]))


def expire(now):
    for key in [key for key, session in sessions.items() if session.expires <= now]:
        del sessions[key]


next_expiry = time.monotonic()
while True:
    ready = dict(poller.poll(1000))
    if requests in ready:
        take(requests, begin)
    if stream in ready:
        take(stream, receive)
    if (now := time.monotonic()) >= next_expiry:
        expire(now)
        next_expiry = now + 1
