# SPDX-License-Identifier: Apache-2.0
"""Text files of the host with names and name servers: /etc/hosts, resolv.conf."""

from cnihook.fast import statefile
from cnihook.types.errors import invalid_config


def read(path: str) -> str:
    """Return the text of a file of the host; empty if it does not exist, or this user may not read it.

    It is also empty if the path leads to something other than a regular file, such as /dev/null.

    Raises CniError or OSError if it cannot be read.
    """
    try:
        content = statefile.content(path, follow=True) or b""
    except (PermissionError, statefile.NotRegularFileError):
        return ""
    except statefile.UnusableFileError as problem:
        raise invalid_config(f"{path}: {problem}") from None
    return content.decode(errors="surrogateescape")
