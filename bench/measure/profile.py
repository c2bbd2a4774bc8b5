"""Where Forebay's edge spends its time: `perf` beside a load, and the functions that it found it in.

Without hardware counters perf samples the clock; which function is on top is seen all the same.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

FREQUENCY_HZ = 999
FUNCTIONS_MAX = 10
LINE = re.compile(r"\s+([\d.]+)%\s+\[(.)\] (.*?)[\s-]*$")

# Set by the command line.
is_wanted = False
# Set in the last run: what perf takes is not in the figures of the others.
is_last_run = False


class Profile:
    """Samples processes while it is entered, if that is wanted, and prints which functions were seen most."""

    def __init__(self, title, pids):
        self.title, self.pids = title, pids

    def __enter__(self):
        self.perf = None
        if is_wanted and is_last_run:
            self.directory = tempfile.TemporaryDirectory(prefix="forebay-perf-")
            self.data = Path(self.directory.name) / "perf.data"
            command = ["perf", "record", "-g", "-F", FREQUENCY_HZ, "-o", self.data, "-p", ",".join(map(str, self.pids))]
            try:
                self.perf = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            except FileNotFoundError:
                print("there is no perf: no profile", file=sys.stderr)

    def __exit__(self, *_):
        if self.perf is None:
            return
        self.perf.send_signal(subprocess.signal.SIGINT)
        self.perf.wait()
        command = ["perf", "report", "-i", self.data, "--no-children", "-g", "none", "--stdio", "--fields", "overhead,sym"]
        report = subprocess.run(list(map(str, command)), capture_output=True, text=True).stdout
        lines = [found.groups() for found in map(LINE.match, report.splitlines()) if found]
        kernel = sum(float(share) for share, where, _ in lines if where == "k")
        print(f"\nself time of {self.title}: {kernel:.0f} % of it in the kernel")
        for share, where, function in lines[:FUNCTIONS_MAX]:
            print(f"    {share:>5} %  [{where}] {function}", flush=True)
        self.directory.cleanup()
