# SPDX-License-Identifier: Apache-2.0
"""MAC addresses requested by annotation: in use by another container, or left by a crash."""

from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import bridge, call_hook, configure

MAC = "02:00:00:00:00:77"


@pytest.fixture(autouse=True)
def network(host: Host) -> None:
    configure(host, bridge("net1", "10.1.0.0/24"))
    host.leaves("dir /run/cnihook*", "file /run/cnihook*")


def hook(host: Host, event: str, name: str, space: Any) -> str:
    state = {"ociVersion": "1.0.2", "id": name, "pid": space.pid, "bundle": "/"}
    annotations = {"cnihook.mac-address": MAC}
    process = call_hook(host, event, state | {"status": "creating", "annotations": annotations})
    return f"{process.returncode} {process.stderr}"


def test_mac_address_of_another_container_is_refused(host: Host) -> None:
    one, two = (host.container(name, process=True) for name in ("c1", "c2"))
    assert hook(host, "createRuntime", "c1", one) == "0 "

    printed = hook(host, "createRuntime", "c2", two)
    assert (
        printed.startswith("1 ") and f"MAC address {MAC} is taken" in printed and "net1 c1 eth0" in printed
    )
    assert hook(host, "poststop", "c2", two).startswith("0 ")
    assert hook(host, "poststop", "c1", one) == "0 "


@pytest.mark.parametrize("name", ["c1", "c2"])
def test_mac_address_of_a_killed_container_is_free(host: Host, name: str) -> None:
    """The poststop hook never ran, so the link and the record still exist."""
    one = host.container("c1", process=True)
    assert hook(host, "createRuntime", "c1", one) == "0 "
    one.destroy()

    again = host.container(f"{name}-again", process=True)
    assert hook(host, "createRuntime", name, again) == "0 "
    assert again.link("eth0")["address"] == MAC
    assert hook(host, "poststop", name, again) == "0 "
