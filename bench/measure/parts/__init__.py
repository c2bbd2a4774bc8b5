"""The parts of the measurement. Each has `run(settings, results)`, `tables(results)` and `goals(results)`."""

import dataclasses

from .. import profile
from ..machine import Absent, Failed
from ..processes import Scene


@dataclasses.dataclass
class Settings:
    """How long and how often is measured. What is quick shows that it works, and no more."""

    runs: int
    seconds: float
    quick: bool
    only: str


def in_turn(settings, results, systems):
    """Runs each system once, and all again, as often as there are runs: A B C A B C.

    A system is a name and a function that is given a fresh scene. One that fails is passed over in this run, and said so.
    """
    for turn in range(settings.runs):
        profile.is_last_run = turn + 1 == settings.runs
        print(f"run {turn + 1} of {settings.runs}", flush=True)
        for name, measure in systems.items():
            if settings.only.lower() not in name.lower():
                continue
            try:
                with Scene() as scene:
                    measure(scene)
            except (Absent, Failed) as fault:
                results.fault(name, str(fault))
