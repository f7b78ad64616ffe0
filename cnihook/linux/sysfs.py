# SPDX-License-Identifier: Apache-2.0
"""
Network interfaces and the hardware behind them, from /sys.

/sys lists the interfaces of the network namespace in which it was mounted: the host's.
"""

import os

from cnihook.fast import descriptor

_INTERFACES = "/sys/class/net"


def has_set_mac(interface: str) -> bool:
    """Return True if a program set the MAC of an interface, not the kernel (which may copy a port's)."""
    try:
        kind = descriptor.content(f"{_INTERFACES}/{interface}/addr_assign_type")
        return kind.strip() == b"3"  # NET_ADDR_SET in <linux/netdevice.h>
    except OSError:
        return False


def device_on(bus: str, name: str) -> str:
    """Return the folder of a device by its bus (pci, auxiliary) and its name there; empty if none."""
    path = f"/sys/bus/{bus}/devices/{name}"
    # Only a name is accepted, not a path to another folder.
    return path if name.strip(".") and "/" not in name and os.path.isdir(path) else ""


def device_of(interface: str) -> str:
    """Return the folder of the device of an interface; empty for an interface that is only software."""
    path = f"{_INTERFACES}/{interface}/device"
    return os.path.realpath(path) if os.path.isdir(path) else ""


def driver_of(device: str) -> str:
    """Return the name of a device's driver, or an empty string."""
    try:
        return os.path.basename(os.readlink(f"{device}/driver"))
    except OSError:
        return ""


def interfaces_of(device: str) -> "list[str]":
    """Return the interfaces of a device.  With virtio they belong to a device below it."""
    try:
        below = sorted(name for name in os.listdir(device) if name.startswith("virtio"))
    except OSError:
        return []
    for folder in (device, *(f"{device}/{name}" for name in below)):
        try:
            if names := os.listdir(f"{folder}/net"):
                return sorted(names)
        except OSError:
            pass  # it has none
    return []
