# SPDX-License-Identifier: Apache-2.0
"""Files that keep state in a folder that other programs can write to, too."""

import os
import stat


def read(path: str) -> "bytes | None":
    """Return the content of a regular file; None if there is no file, or one of another kind.

    An open would wait at a FIFO, and some devices act on it.  Raises OSError, with the path, if the file is
    there and cannot be read.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    content = b""
    try:
        while part := os.read(fd, 65536):
            content += part
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)
    return content
