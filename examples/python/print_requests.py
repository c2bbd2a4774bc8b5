"""Prints requests and answers none: whoever knows the id may answer, as `send_response.py` does.

    python print_requests.py --spec ipc:///tmp/edge
"""

import argparse

import tnet
import zmq

parser = argparse.ArgumentParser(description="Prints the id, the edge and the target of each request.")
parser.add_argument("--spec", default="ipc://client", help="the edge's --zclient-stream")
options = parser.parse_args()

requests = zmq.Context().socket(zmq.PULL)
requests.connect(options.spec + "-out")
while True:
    request = tnet.loads(requests.recv()[1:])
    print(*(request[field].decode() for field in ("id", "from", "method", "uri")), flush=True)
