"""Answers one request that another process got.

    python send_response.py --spec ipc:///tmp/edge edge 0-0-1

The edge and the id are what `print_requests.py` prints.
"""

import argparse

import tnet
import zmq

parser = argparse.ArgumentParser(description="Answers the request with this id.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
parser.add_argument("--body", default="hello from elsewhere\n", help="what to answer")
parser.add_argument("edge", help="the edge's --id")
parser.add_argument("id", help="the id of the request")
options = parser.parse_args()

answers = zmq.Context().socket(zmq.XPUB)
answers.connect(options.spec + "-in")
answers.recv()  # the edge has subscribed
answer = {"from": "responder", "id": options.id, "code": 200, "body": options.body}
answers.send(options.edge.encode() + b" T" + tnet.dumps(answer))
answers.close(linger=1000)
