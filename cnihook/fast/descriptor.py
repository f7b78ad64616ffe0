# SPDX-License-Identifier: Apache-2.0
"""Close a descriptor that nothing was written to."""

import os


def close(fd: int) -> bool:
    """Close a descriptor; return False if the kernel reports an error.  The descriptor is freed in any case.

    close(2) reports an earlier failed write, or a signal.  Neither is a reason to fail after the work is
    done.
    """
    try:
        os.close(fd)
    except OSError:
        return False
    return True
