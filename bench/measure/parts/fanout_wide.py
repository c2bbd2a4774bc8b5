"""Fan-out to 10,000 subscribers; what is measured is in `fanout`."""

from .. import fan
from ..results import Goal
from . import fanout
from .fanout import ONE, PAYLOADS, point, tables  # noqa: F401

SECONDS = 1.2
SUBSCRIBERS = 10_000


def run(settings, results):
    fanout.run(settings, results, SUBSCRIBERS)


def goals(results):
    yield from fanout.goals(results)
    for payload in PAYLOADS:
        latency = results.ratio("p99_ms", point(payload, ONE), fan.FOREBAY, fan.BARE)
        yield Goal(f"p99, of the bare loop's: {point(payload, ONE)}", latency, 1.5)
