# SPDX-License-Identifier: Apache-2.0
"""linux.dbus: method calls to the bus itself, the one service that every bus has."""

from collections.abc import Iterator

import pytest

from cnihook.linux.dbus import Bus, DBusError, NoServiceError
from tests.support.host.host import Host
from tests.support.services.firewalld import BUS, start_bus

pytestmark = pytest.mark.needs("dbus-daemon")

DBUS, PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"


@pytest.fixture(autouse=True)
def implementation() -> None:
    """No plugin takes part: one run is enough."""


@pytest.fixture
def address(host: Host, monkeypatch: pytest.MonkeyPatch) -> str:
    address = f"unix:path={host.root}{BUS}"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    return address


@pytest.fixture
def bus(host: Host, address: str) -> Iterator[Bus]:
    start_bus(host)
    bus = Bus()
    yield bus
    bus.close()


def test_answers_are_booleans_and_strings(bus: Bus) -> None:
    assert bus.call(DBUS, PATH, DBUS, "NameHasOwner", DBUS) is True
    assert bus.call(DBUS, PATH, DBUS, "NameHasOwner", "org.example.Missing") is False
    assert bus.call(DBUS, PATH, DBUS, "GetNameOwner", DBUS) == DBUS


def test_strings_of_any_length(bus: Bus) -> None:
    """Every string begins at a multiple of four bytes, and the header ends at a multiple of eight."""
    for length in range(1, 18):
        name = "org.example." + "x" * length
        with pytest.raises(NoServiceError, match=name):
            bus.call(DBUS, PATH, DBUS, "GetNameOwner", name)
        with pytest.raises(DBusError, match="does not understand message None"):
            bus.call(DBUS, PATH, f"org.example.{'y' * length}", "None", name, "", name)
    assert bus.call(DBUS, PATH, DBUS, "NameHasOwner", DBUS) is True


def test_name_without_an_owner_is_an_error(bus: Bus) -> None:
    """No service is started for it."""
    with pytest.raises(NoServiceError, match="org.example.Missing"):
        bus.call("org.example.Missing", "/", "org.example.Missing", "Do", "it")


def test_missing_bus_is_an_error(host: Host, address: str) -> None:
    with pytest.raises(NoServiceError, match="No such file or directory") as none:
        Bus()
    assert address in str(none.value)


@pytest.mark.parametrize("wrong", ["tcp:host=localhost,port=1", "unix:", "nonsense"])
def test_invalid_address_is_an_error(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", wrong)

    with pytest.raises(NoServiceError, match="no unix socket"):
        Bus()


def test_address_is_one_of_a_list_and_may_be_escaped(
    host: Host, bus: Bus, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    escaped = address.replace("_", "%5f")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"tcp:host=localhost,port=1;{escaped},guid=0123")

    Bus().close()
