# SPDX-License-Identifier: Apache-2.0
"""
A program that runs a launcher of cnihook and watches the order in which it takes locks.

    python3 -IS lock_order.py LOG [python3 -IS] LAUNCHER ARGUMENT...

LOG gets a line for each lock, with those that the process holds in front: `container-c1 network-mynet nft`.
A line that starts with `WRONG ` breaks the order in cnihook/protocol/locks.py.
"""

import os
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[3]
WRONG = "WRONG "


def watch(log: str) -> None:
    """Replace the methods of Lock by some that check the order before they take the lock."""
    from cnihook.linux.flock import Lock
    from cnihook.protocol import locks

    held: list[str] = []
    enter, leave = Lock.__enter__, Lock.__exit__

    def name_of(lock: Lock) -> str:
        return os.path.basename(lock._path).removesuffix(".lock")

    def level(name: str) -> int:
        return locks.ORDER.index(name.partition("-")[0])

    def is_allowed(name: str, timeout: float) -> bool:
        if not timeout or not held:
            return True  # a single attempt does not wait
        highest = max(map(level, held))
        is_other_container = level(name) == highest == level("container")
        return level(name) > highest or (is_other_container and timeout <= locks.PATIENCE)

    def checked_enter(lock: Lock) -> Lock:
        name = name_of(lock)
        line = " ".join([*held, name])
        note(log, line if is_allowed(name, lock._timeout) else f"{WRONG}{line}")
        enter(lock)
        held.append(name)
        return lock

    def checked_leave(lock: Lock, *error: Any) -> None:
        held.remove(name_of(lock))
        leave(lock, *error)

    Lock.__enter__, Lock.__exit__ = checked_enter, checked_leave  # type: ignore[method-assign]


def note(log: str, line: str) -> None:
    # Written at once, because cnihook ends without the exit handlers of Python.
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def main() -> None:
    log, *argv = sys.argv[1:]
    if argv[0].endswith("/python3"):
        argv = argv[2:]
    sys.path.insert(0, str(CHECKOUT))
    watch(log)
    sys.argv = argv
    code = compile(Path(argv[0]).read_text(), argv[0], "exec")
    exec(code, {"__name__": "__main__", "__file__": argv[0]})


if __name__ == "__main__":
    main()
