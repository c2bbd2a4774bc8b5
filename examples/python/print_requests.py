"""Prints requests and answers none: whoever knows the edge and the id may answer, as `send_response.py` does.

    python print_requests.py --spec ipc:///tmp/edge | xargs -n2 python send_response.py --spec ipc:///tmp/edge
    curl http://localhost:8000/
"""

import argparse
import sys

import tnet
import zmq

parser = argparse.ArgumentParser(description="Prints the edge and the id of each request, and to stderr its target.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
options = parser.parse_args()

requests = zmq.Context().socket(zmq.PULL)
requests.connect(options.spec + "-out")
while True:
    request = tnet.loads(requests.recv()[1:])
    print(request["method"].decode(), request["uri"].decode(), file=sys.stderr, flush=True)
    print(request["from"].decode(), request["id"].decode(), flush=True)
