# SPDX-License-Identifier: Apache-2.0
"""Fault injection by strace: system calls that fail, or kill their caller."""


def fault(syscall: str, what: str, path: str = "", log: str = "/dev/null") -> tuple[str, ...]:
    """Return a launcher for a command: `syscall` (on `path`) does `what`, such as "error=EIO:when=1".

    `log`: a file for the calls, in which those that were changed have "(INJECTED)".
    """
    only = ("-P", path) if path else ()
    inject = f"inject={syscall}:{what}"
    return ("strace", "-qq", "-o", log, "-e", f"trace={syscall}", *only, "-e", inject)
