# SPDX-License-Identifier: Apache-2.0
"""Kernel settings under /proc/sys.

Those under net are of the namespace that the process is in at that moment.
"""

import os


def _path(name: str) -> str:
    return f"/proc/sys/{name}"


def name_of(key: str) -> str:
    """A setting's name with slashes, from either form: net.ipv4.ip_forward or net/ipv4/ip_forward.

    As sysctl(8) has it, the first separator is the one, and the other stands for a dot in an interface's
    name: net.ipv4.conf.eth0/100.arp_notify or net/ipv4/conf/eth0.100/arp_notify.
    """
    dot, slash = key.find("."), key.find("/")
    if dot < 0 or 0 <= slash < dot:
        return key
    return "/".join(part.replace("/", ".") for part in key.split("."))


def dotted(name: str) -> str:
    """The form that sysctl(8) takes, of a name with slashes."""
    return ".".join(part.replace(".", "/") for part in name.split("/"))


def read(name: str) -> str:
    """The value of `name`, with slashes since an interface's name may hold dots: net/ipv4/ip_forward."""
    with open(_path(name)) as file:
        return file.read().strip()


def write(name: str, value: "str | int") -> None:
    """Set it, unless it is so already: /proc/sys may be read-only, and many settings are right.

    Raises OSError with the change as its `filename`.
    """
    wanted = str(value)
    try:
        if read(name).split() == wanted.split():  # the kernel puts tabs between numbers
            return
    except OSError:
        pass  # some cannot be read: ipv4/route/flush never, conf/eth0/stable_secret not before it is set
    try:
        fd = os.open(_path(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"{wanted}\n".encode())  # a list is emptied by a line, and not by nothing at all
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"set sysctl {name} to {wanted}") from None


def write_if_present(name: str, value: "str | int") -> None:
    """As write(), but a kernel that lacks the setting (for want of IPv6, say) is left as it is."""
    try:
        write(name, value)
    except FileNotFoundError:
        pass
