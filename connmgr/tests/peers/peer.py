"""A ZeroMQ peer made of pyzmq, that is, of libzmq: the reference that the contract tests compare the bus with.

One process holds any number of sockets. It reads commands from stdin, a JSON object a line, and answers each with
one on stdout. Frames are hexadecimal. The tests stop (SIGSTOP) and kill (SIGKILL) these processes, so nothing here
cleans up. It ends when stdin does.
"""

import json
import sys
import time
import zlib

import zhttp
import zmq

context = zmq.Context()
sockets = {}


def open_(name, type, bind=(), connect=(), identity=None, subscribe=(), options=None):
    """Makes a socket. `options` are names and values of libzmq's, as integers."""
    socket = context.socket(getattr(zmq, type))
    socket.linger = 0
    if identity is not None:
        socket.setsockopt(zmq.IDENTITY, identity.encode())
    for option, value in (options or {}).items():
        socket.setsockopt(getattr(zmq, option), value)
    for prefix in subscribe:
        socket.setsockopt(zmq.SUBSCRIBE, prefix.encode())
    for endpoint in bind:
        socket.bind(endpoint)
    for endpoint in connect:
        socket.connect(endpoint)
    sockets[name] = socket
    return {}


def close(name):
    """Closes a socket, after what was sent is written (10 s at most)."""
    sockets.pop(name).close(linger=10_000)
    return {}


def send(name, frames, copies=1):
    """Sends a message so many times. A frame `@N` is N bytes of `x`."""
    decoded = [b"x" * int(frame[1:]) if frame.startswith("@") else bytes.fromhex(frame) for frame in frames]
    for _ in range(copies):
        sockets[name].send_multipart(decoded)
    return {}


def send_when_there(name, frames):
    """Sends a message from a ROUTER with ROUTER_MANDATORY, as soon as its peer has said who it is. No event tells."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return send(name, frames)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH or time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def send_all(name, messages):
    """Sends messages, a list of frames each."""
    for frames in messages:
        sockets[name].send_multipart([bytes.fromhex(frame) for frame in frames])
    return {}


def number(name, prefix, count):
    """Sends `count` messages `prefix` + number, from 0 on. `prefix` is a list of frames; the last one is extended."""
    head = [bytes.fromhex(frame) for frame in prefix]
    for index in range(count):
        sockets[name].send_multipart(head[:-1] + [head[-1] + str(index).encode()])
    return {}


def receive(name, timeout):
    deadline = time.monotonic() + timeout / 1000
    while True:
        left = max(0, int((deadline - time.monotonic()) * 1000))
        if sockets[name].poll(left):
            return sockets[name].recv_multipart()
        if left == 0:
            return None


def recv(name, count=1, timeout=30_000):
    """Receives up to `count` messages, or what has come when the time (in ms) is over."""
    messages = []
    while len(messages) < count and (message := receive(name, timeout)) is not None:
        messages.append([frame.hex() for frame in message])
    return {"messages": messages}


def drain(name, count, timeout=30_000):
    """Receives like `recv`, and tells only how many messages came, and the last one's frames as [length, crc32]."""
    received, last = 0, []
    while received < count and (message := receive(name, timeout)) is not None:
        received, last = received + 1, message
    return {"count": received, "last": [[len(frame), zlib.crc32(frame)] for frame in last]}


def echo(name, count, timeout=30_000):
    """Sends `count` messages back where they came from."""
    echoed = 0
    while echoed < count and (message := receive(name, timeout)) is not None:
        sockets[name].send_multipart(message)
        echoed += 1
    return {"count": echoed}


def first_subscription(endpoint):
    """Connects an XPUB, and tells what it was subscribed to first, and how long after the connect, in milliseconds."""
    socket = context.socket(zmq.XPUB)
    socket.linger = 0
    started = time.monotonic()
    socket.connect(endpoint)
    if not socket.poll(30_000):
        return {"subscription": None}
    subscription = socket.recv()
    took = (time.monotonic() - started) * 1000
    socket.close()
    return {"subscription": subscription.hex(), "ms": took}


commands = {
    "open": open_, "close": close, "send": send, "number": number, "recv": recv, "drain": drain, "echo": echo,
    "first_subscription": first_subscription, "send_all": send_all, "send_when_there": send_when_there,
    "serve": lambda **arguments: zhttp.serve(sockets, **arguments),
    "upload": lambda **arguments: zhttp.upload(sockets, **arguments),
    "collect": lambda **arguments: zhttp.collect(sockets, **arguments),
    "download": lambda **arguments: zhttp.download(sockets, **arguments),
}

for line in sys.stdin:
    arguments = json.loads(line)
    try:
        answer = commands[arguments.pop("do")](**arguments)
    except Exception as error:  # told to the test, which fails with it
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
