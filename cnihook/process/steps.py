# SPDX-License-Identifier: Apache-2.0
"""
The time of each step of a process, from its start on: loaded only with CNIHOOK_TIMING.

A step has the time since the step before it ended.  Steps with the same name are added up.
"""

import os
import time


class Steps:
    """The steps so far, in the order in which each first ended."""

    def __init__(self, began: float) -> None:
        """`began`: time.monotonic() when the command was known, before the modules for it were loaded."""
        now = time.monotonic()
        # age() may be less than it is by up to a tick: what this turn has run so far counts at its end only.
        self.seconds = {"Python": max(0.0, began - now + age()), "modules": now - began}
        self._last = time.monotonic()  # what this module costs counts for no step

    def end(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    @property
    def total(self) -> float:
        """Seconds from the start of the process to the end of the last step."""
        return sum(self.seconds.values())


def age() -> float:
    """Return the seconds since this process was started, including what it ran before exec.

    /proc/self/stat has the start in ticks of 10 ms.  /proc/self/schedstat has, in ns, how long the process
    ran and waited for a processor.  Only waits for a disk are missing there, and the tick bounds these.
    """
    try:
        with open("/proc/self/schedstat") as file:
            running, waiting, _ = map(int, file.read().split())
        seconds = (running + waiting) / 1e9
    except OSError:  # the kernel has no CONFIG_SCHED_INFO
        seconds = time.process_time()
    try:
        with open("/proc/self/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return seconds
    tick = 1 / os.sysconf("SC_CLK_TCK")
    longest = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) * tick
    return min(max(seconds, longest - tick), longest)
