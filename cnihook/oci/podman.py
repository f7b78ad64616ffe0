# SPDX-License-Identifier: Apache-2.0
"""
Detection of podman before 4.6.0, which copies the annotations of an image's manifest into the container.

With it, an image can make requests that the user did not make.  No annotation proves that podman made a
container, because an image can overwrite `io.container.manager`.  But podman's monitor, conmon, is the
parent of the runtime.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_WITHOUT = (4, 6)  # podman pull request 18542
_ANCESTORS = 4  # the runtime, conmon, and wrappers between them
_CACHE = "/run/cnihook/podman"
_TIMEOUT = 10.0  # seconds for `podman --version`, which takes 0.02


def copies_annotations(runtime: int) -> str:
    """Return the reason why an image may have written the annotations; empty if it cannot have.

    `runtime` is the process of the container runtime, or the parent of the container's process.
    """
    program = maker(runtime)
    if not program:
        return ""
    number = version(program)
    if not number:
        return f"{program} made the container, and its version is not known"
    return reason(number) if number < FIRST_WITHOUT else ""


def reason(version: "tuple[int, ...]") -> str:
    number = ".".join(map(str, version))
    return f"podman {number} copies annotations of the image into the container, so an image can write them"


def maker(pid: int) -> str:
    """Return the path of the podman whose conmon is this process or an ancestor; empty without one."""
    for ancestor in _ancestors(pid):
        arguments = os.fsdecode(_read(f"/proc/{ancestor}/cmdline")).split("\0")
        # An option of conmon, whatever the name of its file.  CRI-O's conmon does not have it.
        if "--exit-command" in arguments[:-1]:
            return arguments[arguments.index("--exit-command") + 1] or "podman"
    return ""


def _ancestors(pid: int) -> "Iterator[int]":
    for _ in range(_ANCESTORS):
        if pid <= 1:
            return
        yield pid
        pid = parent(pid)


def parent(pid: int) -> int:
    """Return the parent of a process; 0 if it is gone."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _read(path: str) -> bytes:
    """Return the content of a file; empty if it, or its process, does not exist.  Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return b"".join(iter(lambda: os.read(fd, 1 << 16), b""))
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return b""


def version(program: str) -> "tuple[int, ...]":
    """Return the version of podman at this path; empty if it is not known.

    Podman is started once for each boot and file.  A program that users other than root can change is not
    started.
    """
    try:
        fd = os.open(program, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ()
    try:
        status = os.fstat(fd)
        if status.st_uid or status.st_mode & 0o022 or not os.path.basename(program).startswith("podman"):
            return ()
        identity = f"{status.st_dev}:{status.st_ino}:{status.st_mtime_ns}:{status.st_ctime_ns}"
        cached = _read(_CACHE).decode(errors="replace").split()
        if cached[:1] == [identity] and len(cached) == 2:
            return _parse(cached[1])
        text = _ask(f"/proc/{os.getpid()}/fd/{fd}")
    except OSError:
        return ()
    finally:
        os.close(fd)
    number = _parse(text.rpartition(" ")[2])
    if number:
        _write_cache(f"{identity} {'.'.join(map(str, number))}\n")
    return number


def _parse(text: str) -> "tuple[int, ...]":
    """Return the numbers of 4.3.1 or 5.0.0-rc1; empty if there are fewer than two."""
    numbers = text.strip().partition("-")[0].split(".")
    if len(numbers) < 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        return ()
    return tuple(map(int, numbers))


def _ask(program: str) -> str:
    from cnihook.process import child

    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
    outcome = child.run(program, ["podman", "--version"], environment, b"", _TIMEOUT)
    return outcome.stdout.decode(errors="replace").strip() if outcome.status == 0 else ""


def _write_cache(text: str) -> None:
    temporary = f"{_CACHE}.{os.getpid()}"
    try:
        # The folder is not made here: if it is missing, this is the first container after a boot.
        with open(temporary, "w") as file:
            file.write(text)
        os.replace(temporary, _CACHE)
    except OSError:
        pass  # the next start asks again
