"""Subscribers and events, asked of each system in its own words.

Forebay's event has an envelope around its payload; the bare loop is given payloads that are longer by as much, so that both
write the same bytes. nchan and Condure write what they write, which is less.
"""

import dataclasses

from . import load, systems
from .machine import Failed
from .profile import Profile
from .systems import ORG, Server

# New subscribers a second: below what makes a backlog overflow, which would cost a second.
OPEN_RATE = 12_000

FOREBAY = "Forebay"
NCHAN = "nginx + nchan"
CONDURE = "Condure"
BARE = "bare"


@dataclasses.dataclass
class Fan:
    """A server that fans out, and how it is asked to."""

    name: str
    server: Server
    options: list
    is_bare: bool = False


def forebay(scene):
    server = systems.forebay(scene)
    behind = systems.behind(scene, server)
    return Fan(FOREBAY, server, ["--org", ORG, "--keys", behind.keys])


def nchan(scene):
    server = systems.nginx(scene)
    paths = ["--subscribe", "/sub?ch={c}", "--publish", "/pub?ch={c}", "--body", "raw"]
    return Fan(NCHAN, server, [*paths, "--header", "Accept: text/event-stream"])


def condure(scene):
    server = systems.condure(scene)
    control = systems.peer_handler(scene, server, "hold")
    paths = ["--subscribe", "/{c}", "--publish", f"http://{control}/{{c}}", "--body", "raw"]
    return Fan(CONDURE, server, paths)


def bare(scene):
    server = systems.bare(scene, "fan")
    return Fan(BARE, server, ["--subscribe", "/", "--publish", "/", "--body", "raw"], is_bare=True)


ALL = {FOREBAY: forebay, NCHAN: nchan, CONDURE: condure, BARE: bare}


class Envelopes:
    """How many bytes Forebay's envelope adds, by payload, so that the bare loop writes as many."""

    # What it adds itself: the name of the field, the ends, the frame of the chunk.
    BARE_BYTES = len(b"data: \n\n") + len(b"100\r\n\r\n")

    def __init__(self):
        self.bytes = {}

    def payload(self, fan, payload):
        """The bytes to be posted."""
        return payload + self.bytes.get(payload, 0) if fan.is_bare else payload

    def learn(self, fan, payload, report):
        if fan.name == FOREBAY:
            self.bytes[payload] = round(report["read_bytes_per_delivery"]) - payload - self.BARE_BYTES


def measure(fan, subscribers, payload, how, settings, *more):
    """Publishes to subscribers of one channel, and returns the report."""
    title = f"{fan.name}: {subscribers} subscribers, {payload} bytes, {' '.join(map(str, how))}"
    options = ["--subscribers", subscribers, "--payload", payload, "--open-rate", OPEN_RATE, *how]
    running = load.start("fan", fan.server, *options, *times(settings), *fan.options, *more)
    if fan.name == FOREBAY:
        with Profile(title, fan.server.pids):
            report = load.report(running)
    else:
        report = load.report(running)
    for fault in ("lost", "repeated", "strayed", "damaged", "dropped", "failed"):
        if report[fault]:
            raise Failed(f"{title}: {report[fault]} {fault}")
    return report


def times(settings):
    return ["--seconds", settings.seconds, "--warmup", 0.3]
