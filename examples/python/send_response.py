"""Answers one request that another process got.

    python send_response.py --spec ipc:///tmp/edge --edge edge 0-0-1 "hello from elsewhere"
"""

import argparse

import tnet
import zmq

parser = argparse.ArgumentParser(description="Answers the request with this id.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
parser.add_argument("--edge", default="connmgr", help="the edge's --id")
parser.add_argument("id", help="the id of the request, as print_requests.py shows it")
parser.add_argument("body", help="what to answer")
options = parser.parse_args()

answers = zmq.Context().socket(zmq.XPUB)
answers.connect(options.spec + "-in")
answers.recv()  # the edge has subscribed
answer = {"from": "responder", "id": options.id, "code": 200, "body": options.body}
answers.send(options.edge.encode() + b" T" + tnet.dumps(answer))
answers.close(linger=1000)
