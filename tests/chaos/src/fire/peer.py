"""A peer at an edge's ZeroMQ sockets that does not do its part. (`dumps` stands before this.)

    silent SPEC   connects to all three sockets, and reads nothing
    hello SPEC    says hello as a handler that serves all and feeds, and then stops itself
    half SPEC     connects to the ROUTER without ZeroMQ, and says half of a greeting
"""

import os
import signal
import socket
import sys
import time

mode, spec = sys.argv[1:3]
kind, _, place = spec.partition("://")
host, _, port = place.rpartition(":")


def at(number, name):
    return f"tcp://{host}:{int(port) + number}" if kind == "tcp" else f"{spec}-{name}"


def connected():
    """A connection to the ROUTER, as soon as there is one: the edge may be away just now."""
    while True:
        half = socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX)
        try:
            half.connect((host, int(port) + 1) if kind == "tcp" else f"{place}-out-stream")
            return half
        except OSError:
            time.sleep(0.1)


if mode == "half":
    half = connected()
    half.sendall(b"\xff" + bytes(5))
else:
    import zmq

    name = f"peer-{os.getpid()}"
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.identity = name.encode()
    dealer.immediate = True
    dealer.connect(at(1, "out-stream"))
    if mode == "silent":
        pull = context.socket(zmq.PULL)
        pull.rcvhwm = 1
        pull.connect(at(0, "out"))
        pub = context.socket(zmq.PUB)
        pub.connect(at(2, "in"))
    else:
        hello = {
            "from": name,
            "type": "hello",
            "ttl": 1000,
            "incarnation": time.time_ns() // 1_000_000,
            "feeds": True,
            "serves": [["*", "/publish/"], ["*", "/events/"]],
            "requests-max": 4,
        }
        dealer.poll(flags=zmq.POLLOUT)
        dealer.send_multipart([b"", b"T" + dumps(hello)])
        time.sleep(0.1)  # the library's own thread sends it
        os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(3600)
