"""What a plain ZHTTP handler does in bulk, on the sockets of peer.py: too many packets to ask the test about each.

The sockets are a PULL for requests and a DEALER for everything else. A command takes what it needs from both until it
is done, and answers with what it saw. Bodies are the sequence of all 64-bit numbers from 0 on, little-endian, cut
where they end: whatever is lost, doubled or swapped shows.
"""

import array

import zmq

# Longer than any test; past it a command fails.
PATIENCE_MS = 60_000


def dump(value):
    """Writes a tnetstring. Text is written as its UTF-8 bytes."""
    if isinstance(value, bool):
        data, kind = (b"true" if value else b"false"), b"!"
    elif isinstance(value, int):
        data, kind = b"%d" % value, b"#"
    elif isinstance(value, str):
        data, kind = value.encode(), b","
    elif isinstance(value, bytes):
        data, kind = value, b","
    elif isinstance(value, dict):
        data, kind = b"".join(dump(part) for entry in value.items() for part in entry), b"}"
    else:
        data, kind = b"".join(map(dump, value)), b"]"
    return b"%d:%b%b" % (len(data), data, kind)


def load(data, start=0):
    """Reads a tnetstring; returns it and where it ends. Strings stay bytes."""
    colon = data.index(b":", start)
    end = colon + 1 + int(data[start:colon])
    body, kind = data[colon + 1:end], data[end:end + 1]
    if kind == b",":
        return body, end + 1
    if kind == b"#":
        return int(body), end + 1
    if kind == b"!":
        return body == b"true", end + 1
    if kind not in b"]}":
        raise ValueError(f"type {kind} in a packet of the edge")
    parts, at = [], 0
    while at < len(body):
        part, at = load(body, at)
        parts.append(part)
    return (parts if kind == b"]" else dict(zip(parts[::2], parts[1::2]))), end + 1


def parse(packet):
    assert packet[:1] == b"T", packet
    fields, end = load(packet, 1)
    assert end == len(packet), packet
    return fields


def ids_of(fields):
    """The ids that a packet names, whichever form it has."""
    ids = fields[b"id"]
    return [ids] if isinstance(ids, bytes) else [entry[b"id"] for entry in ids]


def sequence(start, length):
    """That part of the body that all commands and tests know."""
    first, last = start // 8, (start + length + 7) // 8
    numbers = array.array("Q", range(first, last)).tobytes()
    return numbers[start - first * 8:start - first * 8 + length]


class Sessions:
    """The two sockets of a handler, and what it says on them."""

    def __init__(self, sockets, name):
        self.pull, self.stream, self.name = sockets["pull"], sockets["stream"], name
        self.poller = zmq.Poller()
        self.poller.register(self.pull, zmq.POLLIN)
        self.poller.register(self.stream, zmq.POLLIN)

    def next(self):
        """The next packet: whether it is a request, and its fields. Packets of sessions that run come first."""
        ready = dict(self.poller.poll(PATIENCE_MS))
        if self.stream in ready:
            return False, parse(self.stream.recv_multipart()[1])
        if self.pull in ready:
            return True, parse(self.pull.recv())
        raise TimeoutError("nothing comes from the edge")

    def request(self):
        fields = parse(self.pull.recv())
        return fields[b"id"], fields

    def say(self, id, **fields):
        packet = {"from": self.name, "id": id, **{key.replace("_", "-"): value for key, value in fields.items()}}
        self.stream.send_multipart([b"", b"T" + dump(packet)])


def serve(sockets, name, until, grant=100_000):
    """Answers each request with its own body, any number at a time, up to the one whose path is `until`."""
    sessions, bodies, served, cancelled, last = Sessions(sockets, name), {}, 0, 0, None
    while True:
        is_request, fields = sessions.next()
        kind = fields.get(b"type")
        for id in ids_of(fields):
            if is_request:
                bodies[id] = b""
                if fields[b"uri"].endswith(until.encode()):
                    last = id
                if fields.get(b"more"):
                    sessions.say(id, type="credit", credits=grant)
                    continue
            elif kind == b"cancel":
                cancelled += bodies.pop(id, None) is not None
                continue
            elif kind is not None or id not in bodies:
                continue
            else:
                bodies[id] += fields.get(b"body", b"")
                if fields.get(b"more"):
                    continue
            sessions.say(id, code=200, body=bodies.pop(id))
            served += 1
            if id == last:
                return {"served": served, "cancelled": cancelled}


def upload(sockets, name, grant):
    """Takes one request and its body, so many bytes at a time, and says how many came."""
    sessions = Sessions(sockets, name)
    session, _ = sessions.request()
    got, granted, more = 0, 0, True
    while more:
        if got == granted:
            granted += grant
            sessions.say(session, type="credit", credits=grant)
        _, fields = sessions.next()
        if fields.get(b"type") == b"keep-alive":
            continue
        assert ids_of(fields) == [session] and b"type" not in fields, fields
        body = fields.get(b"body", b"")
        assert body == sequence(got, len(body)), f"the bytes from {got} on differ"
        got, more = got + len(body), fields.get(b"more", False)
        assert got <= granted, "more than the credits allow"
    sessions.say(session, code=200, body=str(got))
    return {"bytes": got}


def collect(sockets, name, count):
    """Takes the bodies of so many requests that were granted their credits before, and says how many bytes came."""
    sessions, got, whole = Sessions(sockets, name), {}, 0
    while whole < count:
        _, fields = sessions.next()
        if fields.get(b"type") == b"keep-alive":
            continue
        assert b"type" not in fields, fields
        [id], body = ids_of(fields), fields.get(b"body", b"")
        start = got.get(id, 0)
        assert body == sequence(start, len(body)), f"the bytes from {start} on differ"
        got[id] = start + len(body)
        if not fields.get(b"more", False):
            sessions.say(id, code=200, body=str(got[id]))
            whole += 1
    return {"bytes": sum(got.values())}


def download(sockets, name, length, piece):
    """Answers one request with so many bytes, in pieces as large as `piece` and its credits allow."""
    sessions = Sessions(sockets, name)
    session, request = sessions.request()
    credits, sent, grants = request[b"credits"], 0, 0
    while sent < length:
        while credits == 0:
            _, fields = sessions.next()
            assert ids_of(fields) == [session] and fields.get(b"type") in (b"credit", b"keep-alive"), fields
            credits += fields.get(b"credits", 0)
            grants += 1
        size = min(piece, credits, length - sent)
        head = {"code": 200} if sent == 0 else {}
        more = {"more": True} if sent + size < length else {}
        sessions.say(session, **head, body=sequence(sent, size), **more)
        credits, sent = credits - size, sent + size
    return {"bytes": sent, "grants": grants}
