"""A handler in req mode: one packet in, one packet out, and a plain REP socket.

The edge collects the body of a request before it asks, and wants all of the response at once; neither may
be larger than its --body-buffer-size. There are no credits, no numbers and no addresses: ZeroMQ leads each
reply back to the edge that asked.

    forebay-connmgr --listen 8000,req --zclient-req ipc:///tmp/edge-req
    python req.py --spec ipc:///tmp/edge-req
    curl --data hello http://localhost:8000/
"""

import argparse

import tnet
import zmq

parser = argparse.ArgumentParser(description="Answers each request with what it says, in capitals.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-req")
options = parser.parse_args()

replies = zmq.Context().socket(zmq.REP)
replies.connect(options.spec)

while True:
    request = tnet.loads(replies.recv()[1:])
    print(request["method"].decode(), request["uri"].decode(), flush=True)
    answer = {
        "id": request["id"],
        "code": 200,
        "headers": [["Content-Type", "text/plain"]],
        "body": request.get("body", b"hello, world\n").upper(),
    }
    replies.send(b"T" + tnet.dumps(answer))
