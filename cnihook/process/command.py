# SPDX-License-Identifier: Apache-2.0
"""The execution of a command of the user, in place of this process, as a shell would start it."""

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


_callers_umask = -1


def restrict_umask(callers: "int | None" = None) -> None:
    """Let no other user write the files that this process makes; a command still gets its caller's umask.

    `callers`: the caller's umask, if it has been changed already.
    """
    global _callers_umask
    before = os.umask(0o077)
    _callers_umask = before if callers is None else callers
    os.umask(_callers_umask | 0o022)


def restore_umask() -> None:
    if _callers_umask >= 0:
        os.umask(_callers_umask)


class NotExecutableError(Exception):
    """There is no such command, or it cannot be executed.  `status` is the exit status for that."""

    def __init__(self, message: str, found: bool) -> None:
        super().__init__(message)
        self.status = 126 if found else 127


def environment() -> "dict[str, str]":
    """Return the environment that this process got.  Python may have added LC_CTYPE to os.environ."""
    with open("/proc/self/environ", "rb") as file:
        variables = os.fsdecode(file.read()).split("\0")
    values: dict[str, str] = {}
    for variable in variables:
        name, equals, value = variable.partition("=")
        if equals:
            values.setdefault(name, value)
    return values


def find(name: str, path: str) -> str:
    """Return the file of a command: `name` itself if it is a path, else the first match in `path`."""
    candidates = [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in path.split(":")]
    present = [candidate for candidate in candidates if name and os.path.exists(candidate)]
    for candidate in present:
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    if not present:
        raise NotExecutableError(f"{name or repr(name)}: no such command", found=False)
    why = "it is a folder" if os.path.isdir(present[0]) else "it is not marked as executable"
    raise NotExecutableError(f"{present[0]}: cannot be executed: {why}", found=True)


def execute(program: str, argv: "list[str]", variables: "dict[str, str]") -> "NoReturn":
    """Execute a program in place of this process."""
    restore_umask()
    try:
        try:
            os.execve(program, argv, variables)
        except OSError as error:
            if error.errno != errno.ENOEXEC or not _is_text(program):
                raise
            # A script without #!, which every shell runs as its own.
            os.execve("/bin/sh", ["sh", program, *argv[1:]], variables)
    except OSError as error:
        exists = error.errno != errno.ENOENT
        why = error.strerror if exists else "the interpreter that it names does not exist"
        raise NotExecutableError(f"{program}: cannot be executed: {why}", exists) from None


def _is_text(path: str) -> bool:
    with open(path, "rb") as file:
        return b"\0" not in file.read(80)
