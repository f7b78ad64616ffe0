# SPDX-License-Identifier: Apache-2.0
"""firewalld: the zone of an address, at run time only: a reload or another program ends it."""

import errno

from cnihook.fast.address import Address
from cnihook.linux.dbus import Bus, DBusError, NoServiceError

_SERVICE, _PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_ZONES = f"{_SERVICE}.zone"
_BUS, _BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"


class Firewalld:
    """A connection, by `with Firewalld() as firewalld:`.  Raises NoServiceError without firewalld."""

    def __init__(self) -> None:
        self._bus = Bus()

    def __enter__(self) -> "Firewalld":
        try:
            if not self._bus.call(_BUS, _BUS_PATH, _BUS, "NameHasOwner", _SERVICE):
                raise NoServiceError(f"no program on the system bus has the name {_SERVICE}")
        except BaseException:
            self._bus.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._bus.close()

    def add_source(self, zone: str, address: Address) -> None:
        """Add an address to a zone, unless it is there already.

        Raises OSError if it is in another zone, or the zone does not exist.
        """
        self._call("addSource", zone, address, "ZONE_ALREADY_SET")

    def remove_source(self, zone: str, address: Address) -> None:
        """Remove an address from a zone.  It may be gone already, or be in another zone."""
        self._call("removeSource", zone, address, "UNKNOWN_SOURCE", "ZONE_CONFLICT", "INVALID_ZONE")

    def has_source(self, zone: str, address: Address) -> bool:
        return self._call("querySource", zone, address) is True

    def _call(self, method: str, zone: str, address: Address, *harmless: str) -> "bool | str":
        source = str(address.host_net())
        try:
            return self._bus.call(_SERVICE, _PATH, _ZONES, method, zone, source)
        except DBusError as error:
            code = str(error).partition(":")[0]  # firewalld answers CODE or CODE: TEXT
            if code in harmless:
                return False
            raise OSError(errno.EIO, f"{method} {source} in zone {zone}: {error}", "firewalld") from None
