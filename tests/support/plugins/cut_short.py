# SPDX-License-Identifier: Apache-2.0
"""Steps of a plugin in this process: counted, until one fails.

A step is a request to the kernel, or a file that is created, changed or removed.
"""

import errno
import os
import sys
from typing import Any

from cnihook.linux import libc, netlink, nft

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.chmod"}


def fail_at(number: int) -> None:
    """Let the step with this number fail, and print it to stderr."""
    steps = 0

    def step(what: str) -> None:
        nonlocal steps
        steps += 1
        if steps == number:
            os.write(2, f"cut short at {what}\n".encode())
            raise OSError(errno.EIO, f"cut short at step {number}", what)

    def stepwise(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def replacement(*arguments: Any, **options: Any) -> Any:
            # The return to the host's namespace must not fail; if it does, the process ends at once.
            if sys._getframe(1).f_code.co_name != "_return_to":
                step(f"{name} {arguments[1:] or arguments}"[:200])
            return original(*arguments, **options)

        setattr(owner, name, replacement)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        # os.open() passes flags here; if a descriptor is opened again for reading, nothing changes.
        if event in CHANGES and not str(arguments[0]).endswith(".lock"):  # a lock file may stay
            step(f"{event} {arguments[0]}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            step(f"open {arguments[0]} to write")

    stepwise(netlink.Netlink, "request")
    stepwise(netlink.Netlink, "transaction")
    stepwise(nft, "run")
    for name in ("setns", "unshare", "mount", "umount"):
        stepwise(libc, name)
    sys.addaudithook(audit)
