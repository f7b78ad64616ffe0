# SPDX-License-Identifier: Apache-2.0
"""Network interfaces and the hardware behind them, as /sys tells it.

What it lists of interfaces are those of the network namespace that /sys was mounted in: the host's.
"""

import os

_INTERFACES = "/sys/class/net"


def has_set_mac(interface: str) -> bool:
    """True if a program set the MAC of an interface; else it is the kernel's choice, or a bridge port's."""
    try:
        with open(f"{_INTERFACES}/{interface}/addr_assign_type") as file:
            return file.read().strip() == "3"  # NET_ADDR_SET in <linux/netdevice.h>
    except OSError:
        return False


def device_on(bus: str, name: str) -> str:
    """The folder of a device by its bus (pci, auxiliary) and the name that it has there; empty if none."""
    path = f"/sys/bus/{bus}/devices/{name}"
    # A name, and no way to somewhere else.
    return path if name.strip(".") and "/" not in name and os.path.isdir(path) else ""


def device_of(interface: str) -> str:
    """The folder of the device that an interface belongs to; empty for one that is only software."""
    path = f"{_INTERFACES}/{interface}/device"
    return os.path.realpath(path) if os.path.isdir(path) else ""


def driver_of(device: str) -> str:
    """The name of a device's driver, or an empty string."""
    try:
        return os.path.basename(os.readlink(f"{device}/driver"))
    except OSError:
        return ""


def interfaces_of(device: str) -> "list[str]":
    """The interfaces of a device, which with virtio belong to a device below it."""
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
