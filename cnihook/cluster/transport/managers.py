# SPDX-License-Identifier: Apache-2.0
"""
Programs that manage the network of a host, and may remove what they did not make.

systemd-networkd deletes routes and nexthop objects of other programs when it starts or configures a link,
unless its configuration says otherwise.  NetworkManager may set down a device that it manages.
"""

import configparser
import glob
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnihook.linux.rtnl import Link

_NETWORKD_RAN = "/run/systemd/netif/state"
# A file in an earlier folder replaces one of its name in a later one.
_FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
_FILE = "networkd.conf"
_KEYS = ("ManageForeignRoutes", "ManageForeignNextHops")
_DEVICES_OF_NETWORK_MANAGER = "/run/NetworkManager/devices"


def problems(link: "Link | None" = None) -> "list[str]":
    """Return a line for each such program that may remove routes, or manages this device."""
    lines = []
    if os.path.exists(_NETWORKD_RAN):
        settings = _networkd_settings()
        removing = [key for key in _KEYS if settings.get(key.lower(), "yes") in ("yes", "true", "on", "1")]
        if removing:
            needed = ", ".join(f"{key}=no" for key in removing)
            lines.append(
                f"systemd-networkd may delete the routes: set {needed} below [Network] "
                "in a file of /etc/systemd/networkd.conf.d"
            )
    if link and _value(f"{_DEVICES_OF_NETWORK_MANAGER}/{link.index}", "device", "managed") == "true":
        lines.append(
            f"{link.name}: NetworkManager manages it: set unmanaged-devices=interface-name:{link.name} "
            "below [keyfile] in a file of /etc/NetworkManager/conf.d"
        )
    return lines


def _networkd_settings() -> "dict[str, str]":
    settings: dict[str, str] = {}
    for path in _networkd_files():
        parsed = _parsed(path)
        if parsed.has_section("Network"):
            settings.update((key, value.strip().lower()) for key, value in parsed.items("Network"))
    return settings


def _networkd_files() -> "Iterator[str]":
    """Yield the files in the order in which later ones count."""
    for folder in _FOLDERS:
        if os.path.exists(f"{folder}/{_FILE}"):
            yield f"{folder}/{_FILE}"
            break
    parts: dict[str, str] = {}
    for folder in _FOLDERS:
        for path in glob.glob(f"{folder}/{_FILE}.d/*.conf"):
            parts.setdefault(os.path.basename(path), path)
    yield from (parts[name] for name in sorted(parts))


def _value(path: str, section: str, key: str) -> str:
    return _parsed(path).get(section, key, fallback="")


def _parsed(path: str) -> configparser.ConfigParser:
    """Return the content of a file; of one that is missing or damaged, what could be read."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        pass
    return parser
