"""The smallest handler: it gets requests by PULL and answers by PUB.

    forebay-connmgr --listen 8000 --zclient-stream ipc:///tmp/edge --id edge
    python hello.py --spec ipc:///tmp/edge --edge edge
    curl http://localhost:8000/
"""

import argparse

import tnet
import zmq

parser = argparse.ArgumentParser(description="Answers each request with a greeting.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
parser.add_argument("--edge", default="connmgr", help="the edge's --id")
options = parser.parse_args()

context = zmq.Context()
# What is published before the edge has subscribed is lost. An XPUB is a PUB that hears subscriptions.
answers = context.socket(zmq.XPUB)
answers.connect(options.spec + "-in")
answers.recv()
requests = context.socket(zmq.PULL)
requests.connect(options.spec + "-out")

while True:
    # `T`, for tnetstring, and a map.
    request = tnet.loads(requests.recv()[1:])
    print(request["method"].decode(), request["uri"].decode(), flush=True)
    answer = {
        "from": "hello",
        "id": request["id"],
        "code": 200,
        "headers": [["Content-Type", "text/plain"]],
        "body": "hello, world\n",
    }
    # The edge's name in front says whose it is: several edges may listen to one handler.
    answers.send(options.edge.encode() + b" T" + tnet.dumps(answer))
