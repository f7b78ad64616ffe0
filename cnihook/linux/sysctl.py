# SPDX-License-Identifier: Apache-2.0
"""
Kernel settings under /proc/sys.

Those under net belong to the namespace that the process is in at that moment.
"""

import os

from cnihook.fast import descriptor


def _path(name: str) -> str:
    return f"/proc/sys/{name}"


def name_of(key: str) -> str:
    """Return a setting's name with slashes, from either form: net.ipv4.ip_forward or net/ipv4/ip_forward.

    As in sysctl(8), the first separator decides.  The other one stands for a dot in an interface's name:
    net.ipv4.conf.eth0/100.arp_notify or net/ipv4/conf/eth0.100/arp_notify.
    """
    dot, slash = key.find("."), key.find("/")
    if dot < 0 or 0 <= slash < dot:
        return key
    return "/".join(part.replace("/", ".") for part in key.split("."))


def dotted(name: str) -> str:
    """Return a name with slashes in the form that sysctl(8) takes."""
    return ".".join(part.replace(".", "/") for part in name.split("/"))


def read(name: str) -> str:
    """Return the value of `name`, such as net/ipv4/ip_forward.

    The name has slashes, because an interface's name may have dots.
    """
    return descriptor.content(_path(name)).decode(errors="replace").strip()


def write(name: str, value: "str | int") -> None:
    """Set a value, unless it is set already: /proc/sys may be read-only, and many settings are right.

    Raises OSError with the change as its `filename`.
    """
    text = str(value)
    try:
        fd = _open_to_write(name, text)
        try:
            if fd is not None and not _has(fd, text):
                os.pwrite(fd, f"{text}\n".encode(), 0)  # an empty line empties a list; nothing does not
        finally:
            if fd is not None:
                os.close(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"set sysctl {name} to {text}") from None


def _open_to_write(name: str, text: str) -> "int | None":
    """Return a descriptor; None if /proc/sys is read-only, and the setting has the value."""
    try:
        return os.open(_path(name), os.O_RDWR | os.O_CLOEXEC)  # one path to find instead of two: see devconf
    except FileNotFoundError:
        raise
    except OSError:
        # Some cannot be read, such as ipv4/route/flush.
        try:
            if read(name).split() == text.split():
                return None
        except OSError:
            pass
        return os.open(_path(name), os.O_WRONLY | os.O_CLOEXEC)


def _has(fd: int, text: str) -> bool:
    """Return True if a setting has the value.  The kernel puts tabs between numbers."""
    try:
        return os.pread(fd, 1 << 16, 0).decode(errors="replace").split() == text.split()
    except OSError:
        return False  # opened to write only, or without a value yet, as conf/eth0/stable_secret


def write_if_present(name: str, value: "str | int") -> None:
    """Set a value like write(), but ignore a setting that the kernel lacks (without IPv6, say)."""
    try:
        write(name, value)
    except FileNotFoundError:
        pass
