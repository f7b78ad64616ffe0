# SPDX-License-Identifier: Apache-2.0
"""Close a descriptor that nothing was written to."""

import os


def close(fd: int) -> bool:
    """Return False if the kernel reports an error.  It frees the descriptor in any case.

    close(2) reports a write that failed before, or a signal: not a reason to fail after all is done.
    """
    try:
        os.close(fd)
    except OSError:
        return False
    return True
