# SPDX-License-Identifier: Apache-2.0
"""SELinux, as far as a program needs it to start another one in a different context."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_SELINUXFS = "/sys/fs/selinux/enforce"
_EXEC = "/proc/thread-self/attr/exec"


def is_enabled() -> bool:
    return os.path.exists(_SELINUXFS)


class ExecContext:
    """`with ExecContext(context):` starts programs in that context, if the policy allows it."""

    def __init__(self, context: str) -> None:
        self._context = context

    def __enter__(self) -> None:
        _write(self._context)

    def __exit__(
        self,
        _kind: "type[BaseException] | None",
        _error: "BaseException | None",
        _trace: "TracebackType | None",
    ) -> None:
        _write("")


def _write(context: str) -> None:
    fd = os.open(_EXEC, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, context.encode() or b"\n")  # an empty line clears the context
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"set SELinux context {context!r}") from None
    finally:
        os.close(fd)
