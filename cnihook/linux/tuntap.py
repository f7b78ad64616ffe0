# SPDX-License-Identifier: Apache-2.0
"""
Tap interfaces, whose other end is a program that opens /dev/net/tun.

They are made by ioctl, because older kernels only show them by netlink.  <linux/if_tun.h> has the names and
numbers.
"""

import _struct as struct
import errno
import fcntl
import os

from cnihook.linux import selinux

DEVICE = "/dev/net/tun"
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TUN_EXCL = 0x2, 0x100, 0x1000, 0x8000

_IFREQ = struct.Struct("=16sH22x")  # <linux/if.h>: name, flags
_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
_TIMEOUT = 10.0  # seconds


def add_tap(
    name: str, *, multi_queue: bool = False, owner: "int | None" = None, group: "int | None" = None
) -> None:
    """Create a tap in the namespace of this process, to which a program of this user and group can attach.

    Raises FileExistsError if there is a link of this name.  Until the last call here, the kernel deletes the
    tap with the descriptor.  So a failure half-way leaves nothing.
    """
    tun = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL | (IFF_MULTI_QUEUE if multi_queue else 0)
        try:
            fcntl.ioctl(tun, TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
            raise OSError(error.errno, error.strerror, f"create tap {name}") from None
        if owner is not None:
            fcntl.ioctl(tun, TUNSETOWNER, _as_int(owner))
        if group is not None:
            fcntl.ioctl(tun, TUNSETGROUP, _as_int(group))
        fcntl.ioctl(tun, TUNSETPERSIST, 1)
    finally:
        os.close(tun)


def _as_int(number: int) -> int:
    """Return a number of 32 bits as fcntl.ioctl() takes it, which has a signed int only."""
    return number - (1 << 32) if number >> 31 else number


def add_tap_in_context(
    context: str,
    name: str,
    *,
    multi_queue: bool = False,
    owner: "int | None" = None,
    group: "int | None" = None,
) -> None:
    """Create a tap like add_tap(), with an SELinux context.

    The kernel labels a tap with the context of the process that makes it, and ignores sockcreate and
    fscreate.  A process enters a context by starting a program, and policies are written for `ip`.
    """
    from cnihook.process import child  # only this function starts a program

    program = next((f"{folder}/ip" for folder in _FOLDERS if os.path.exists(f"{folder}/ip")), "")
    if not program:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "ip")
    argv = ["ip", "tuntap", "add", "name", name, "mode", "tap"]
    argv += ["multi_queue"] if multi_queue else []
    argv += ["user", str(owner)] if owner is not None else []
    argv += ["group", str(group)] if group is not None else []
    with selinux.ExecContext(context):
        outcome = child.run(program, argv, {"PATH": ":".join(_FOLDERS)}, b"", _TIMEOUT)
    if outcome.status != 0:
        raise OSError(errno.EPERM, outcome.stderr.decode(errors="replace").strip(), f"create tap {name}")
