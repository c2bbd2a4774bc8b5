"""The sockets of a handler in stream mode, opened in an order in which nothing is lost.

What is published before the edge has subscribed is lost, and so is what the edge says to an address that
is not connected yet. So both are waited for, and requests are taken last.
"""

import zmq

context = zmq.Context()


def connect(spec, name):
    """The sockets for what the edge says to this address, and for answers."""
    stream = context.socket(zmq.DEALER)
    stream.identity = name.encode()
    stream.immediate = True  # not writable before it is connected
    stream.connect(spec + "-out-stream")
    stream.poll(flags=zmq.POLLOUT)
    answers = context.socket(zmq.XPUB)
    answers.connect(spec + "-in")
    answers.recv()  # the edge has subscribed
    return stream, answers


def take_requests(spec):
    """The socket for requests; from now on there may be some."""
    requests = context.socket(zmq.PULL)
    requests.connect(spec + "-out")
    return requests


def poller(*sockets):
    """Waits for all of them."""
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    return poller
