"""Redis alone, with the same script: what the handlers ask of it, asked again without them.

What an append is to Redis (scripts, keys, arguments) is not written down here a second time. One is published through the
handlers while a connection listens in by `MONITOR`; what it sees is then repeated, each time with another channel and another
id of the message.
"""

import re
import secrets
import selectors
import socket
import time

from .machine import Failed

# A reply of append.lua that says "appended".
APPENDED = b"*2\r\n:0\r\n"
ANSWER_SECONDS_MAX = 10
ID_BYTES = 16
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b"}

CHANNEL_MARK = b"{channel}"
ID_MARK = b"{id}"


def _unescape(text):
    def one(found):
        escape = found[1]
        return chr(int(escape[1:], 16)) if escape[0] == "x" else ESCAPES.get(escape, escape)

    return re.sub(r"\\(x[0-9a-f]{2}|.)", one, text, flags=re.S).encode("latin-1")


class Append:
    """The commands of one append, as they were heard, with places for the channel and the id of the message."""

    def __init__(self, commands, channel):
        self.pieces = []
        for command in commands:
            arguments = [_unescape(text) for text in re.findall(r'"((?:[^"\\]|\\.)*)"', command)]
            # The id of the message is the only thing that two events of a channel may not have in common.
            key = next((found[1] for argument in arguments if (found := re.search(rb":id:([0-9a-f]{32})$", argument))), None)
            self.pieces.append(self._template(arguments, channel, key))

    @staticmethod
    def _template(arguments, channel, key):
        """The command as it is sent. Marks are as long as what they stand for, so the lengths stay true."""
        out = b"*%d\r\n" % len(arguments)
        for argument in arguments:
            if key:
                argument = argument.replace(b":id:" + key, b":id:" + ID_MARK.ljust(len(key), b"\0"))
            argument = argument.replace(channel, CHANNEL_MARK.ljust(len(channel), b"\0"))
            out += b"$%d\r\n%s\r\n" % (len(argument), argument)
        return out

    def commands(self, channel):
        """A function that makes the commands of one more append to a channel; its name is as long as the one heard."""
        pad = CHANNEL_MARK.ljust(len(channel), b"\0")
        pieces = b"".join(self.pieces).replace(pad, channel).split(ID_MARK.ljust(2 * ID_BYTES, b"\0"))
        return lambda: secrets.token_hex(ID_BYTES).encode().join(pieces)


def hear(port, publish, channel):
    """What one append to a channel is to Redis, while `publish` makes at least one."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX) as ears:
        ears.sendall(b"MONITOR\r\n")
        _expect(ears, b"+OK\r\n")
        publish()
        heard = []
        lines = ears.makefile(encoding="latin-1", newline="\n")
        for line in lines:
            # Of two appends at a time the first is taken whole: each is a touch and then an append.
            if " lua] " not in line and "EVALSHA" in line and channel.decode() in line:
                heard.append(line)
                if ":id:" in line:
                    return Append(heard[-2:], channel)
    raise Failed("nothing was heard of an append")


def _expect(ears, reply):
    if ears.recv(len(reply)) != reply:
        raise Failed("Redis does not let anybody listen in")


class Pipe:
    """A connection with a number of appends under way."""

    def __init__(self, port, makers, depth):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.makers, self.depth = makers, depth
        self.next = self.under_way = 0
        self.unread = b""

    def fill(self):
        """Sends until as many are under way as there may be."""
        count = self.depth - self.under_way
        turn = (self.makers[(self.next + number) % len(self.makers)]() for number in range(count))
        self.socket.sendall(b"".join(turn))
        self.next += count
        self.under_way += count

    def take(self):
        """Takes what has come, and returns how many appends have been answered."""
        data = self.unread + self.socket.recv(1 << 16)
        if b"-" in data and (found := re.search(rb"^-[A-Z].*$", data, re.M)):
            raise Failed(f"Redis: {found[0].decode()}")
        answered = data.count(APPENDED)
        # A reply that is cut off within what is looked for.
        end = data.rfind(APPENDED) + len(APPENDED) if answered else 0
        self.unread = data[max(end, len(data) - len(APPENDED) + 1) :]
        self.under_way -= answered
        return answered


def replay(port, append, channels, depth, seconds, count=None):
    """Appends to channels with `depth` under way, and returns how many a second. With a count it ends with so many."""
    makers = [append.commands(channel) for channel in channels]
    # Two, so that Redis has the one to do while the other is being filled.
    halves = [makers[::2], makers[1::2]] if len(makers) > 1 else [makers]
    pipes = [Pipe(port, half, max(1, depth // len(halves))) for half in halves]
    selector = selectors.DefaultSelector()
    for pipe in pipes:
        selector.register(pipe.socket, selectors.EVENT_READ, pipe)
        pipe.fill()
    answered, begin = 0, time.monotonic()
    while (answered < count) if count else (time.monotonic() - begin < seconds):
        ready = selector.select(ANSWER_SECONDS_MAX)
        if not ready:
            raise Failed("Redis does not answer")
        for key, _ in ready:
            answered += key.data.take()
            key.data.fill()
    took = time.monotonic() - begin
    for pipe in pipes:
        pipe.socket.close()
    return answered / took
