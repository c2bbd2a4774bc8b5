"""A response that one process begins and another one goes on with.

The first process answers with the head and the first line, and asks the edge to let go (`handoff-start`).
When all that it sent has been written, the edge says so (`handoff-proceed`), and speaks to nobody until
somebody speaks to it. What the first process prints then is all that the second needs to know: the edge,
the id, the number of the next packet, and the credits that are left. The second one says `keep-alive`; from
now on the session is with the address in that packet's `from`. It writes a line a second until the client
leaves. (Who checks the numbers of what comes from the edge has to hand over that number, too.)

    python handoff.py --spec ipc:///tmp/edge | xargs -n4 -P0 python handoff.py --spec ipc:///tmp/edge --take
    curl -N http://localhost:8000/
"""

import argparse
import os
import time

import sockets
import tnet

# Seconds without a word from the edge after which the client is taken to be gone.
SILENCE_MAX = 60

parser = argparse.ArgumentParser(description="Begins responses; with --take, goes on with one.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
parser.add_argument("--interval", type=float, default=1.0, help="seconds from one line to the next")
parser.add_argument("--take", nargs=4, metavar=("EDGE", "ID", "SEQ", "CREDITS"), help="what the first process printed")
options = parser.parse_args()

name = "handoff-%d" % os.getpid()
stream, answers = sockets.connect(options.spec, name)


def send(edge, id, seq, **packet):
    answers.send(edge + b" T" + tnet.dumps({"from": name, "id": id, "seq": seq, **packet}))


def receive():
    packet = tnet.loads(stream.recv_multipart()[1][1:])
    return packet.get("type"), packet.get("credits", 0)


def begin(request):
    edge, id, credits = request["from"], request["id"], request["credits"]
    line = "line 1, by process %d\n" % os.getpid()
    send(edge, id, 0, code=200, headers=[["Content-Type", "text/plain"]], body=line, more=True)
    send(edge, id, 1, type="handoff-start")
    kind, credits = None, credits - len(line)
    # Credits for the line come first. A client may also leave just now.
    while kind not in (b"handoff-proceed", b"cancel", b"error"):
        if not stream.poll(SILENCE_MAX * 1000):
            return
        kind, more = receive()
        credits += more
    if kind == b"handoff-proceed":
        print(edge.decode(), id.decode(), 2, credits, flush=True)


def go_on(edge, id, seq, credits):
    send(edge, id, seq, type="keep-alive")
    number = 2
    next_line = heard = time.monotonic()
    while True:
        line = "line %d, by process %d\n" % (number, os.getpid())
        may_write = credits >= len(line)
        if may_write and next_line <= time.monotonic():
            seq += 1
            send(edge, id, seq, body=line, more=True)
            credits -= len(line)
            number += 1
            next_line += options.interval
            continue
        until = min(next_line, heard + SILENCE_MAX) if may_write else heard + SILENCE_MAX
        if stream.poll(max(0, (until - time.monotonic()) * 1000 + 1)):
            kind, more = receive()
            if kind in (b"cancel", b"error"):
                break
            credits += more
            heard = time.monotonic()
        elif time.monotonic() >= heard + SILENCE_MAX:
            break
    print("the client has left", flush=True)


if options.take:
    edge, id, seq, credits = options.take
    go_on(edge.encode(), id.encode(), int(seq), int(credits))
else:
    requests = sockets.take_requests(options.spec)
    while True:
        begin(tnet.loads(requests.recv()[1:]))
