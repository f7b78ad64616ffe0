# SPDX-License-Identifier: Apache-2.0
"""System calls that fail, or kill their caller, by strace's fault injection."""


def fault(syscall: str, what: str, path: str = "") -> tuple[str, ...]:
    """A launcher for one command: `syscall` (on `path`) does `what`, such as "error=EIO:when=1"."""
    only = ("-P", path) if path else ()
    inject = f"inject={syscall}:{what}"
    return ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={syscall}", *only, "-e", inject)
