# SPDX-License-Identifier: Apache-2.0
"""firewalld: which of its zones an address is in, until it is reloaded or told otherwise."""

import errno

from cnihook.lean.address import Address
from cnihook.linux.dbus import Bus, NoService, Refused

_SERVICE, _PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_ZONES = f"{_SERVICE}.zone"
_BUS, _BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"


class Firewalld:
    """A connection, by `with Firewalld() as firewalld:`.  Raises NoService where firewalld does not run."""

    def __init__(self) -> None:
        self._bus = Bus()

    def __enter__(self) -> "Firewalld":
        try:
            if not self._bus.call(_BUS, _BUS_PATH, _BUS, "NameHasOwner", _SERVICE):
                raise NoService(f"nobody on the system bus has the name {_SERVICE}")
        except BaseException:
            self._bus.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._bus.close()

    def add_source(self, zone: str, address: Address) -> None:
        """It may be there already.  OSError if it is in another zone, or there is no such zone."""
        self._call("addSource", zone, address, "ZONE_ALREADY_SET")

    def remove_source(self, zone: str, address: Address) -> None:
        """It may be gone already, or in another zone by now."""
        self._call("removeSource", zone, address, "UNKNOWN_SOURCE", "ZONE_CONFLICT", "INVALID_ZONE")

    def has_source(self, zone: str, address: Address) -> bool:
        return self._call("querySource", zone, address) is True

    def _call(self, method: str, zone: str, address: Address, *harmless: str) -> "bool | str":
        source = str(address.host_net())
        try:
            return self._bus.call(_SERVICE, _PATH, _ZONES, method, zone, source)
        except Refused as error:
            if str(error).startswith(harmless):
                return False
            raise OSError(errno.EIO, f"{method} {source} in zone {zone}: {error}", "firewalld") from None
