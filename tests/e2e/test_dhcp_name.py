# SPDX-License-Identifier: Apache-2.0
"""The DHCP client sends a container's host name; a real dnsmasq is the server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, Runtime, configure
from tests.support.services import dhcp
from tests.support.services.dhcp import CONF, Lan

pytestmark = pytest.mark.needs("dnsmasq")

RUN = str(CHECKOUT / "scripts" / "priv-net-run")


@pytest.fixture
def lan(host: Host, tmp_path: Path) -> Iterator[Lan]:
    configure(host, CONF)
    lan = Lan(host, tmp_path)
    host.before = host.state()
    dhcp.leave_keeper(host)
    with lan:
        lan.serve()
        yield lan


def names(lan: Lan) -> list[str]:
    return [name for _mac, name, _client in lan.leases().values()]


def provide(host: Host, *items: dict[str, str]) -> None:
    configure(host, CONF | {"ipam": {"type": "dhcp", "provide": list(items)}})


@pytest.mark.parametrize("runtime", ["runc"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "options", "name"),
    [
        ([], {}, "container"),
        ([], {"annotations": {"cnihook.hostname": "asked"}}, "asked"),
        (["--hostname", "asked"], {}, "asked"),
        ([], {"hostname": "web.example.test"}, "web"),
        ([], {"hostname": ""}, "*"),
        ([], {"hostname": "localhost"}, "*"),
    ],
    ids=["config", "annotation", "argument", "qualified", "none", "reserved"],
)
def test_hook_sends_the_host_name(
    runtime: Runtime, lan: Lan, arguments: list[str], options: dict[str, Any], name: str
) -> None:
    runtime.run("c1", *arguments, **options)
    assert names(lan) == [name]


@pytest.mark.parametrize("option", ["host-name", "12"])
def test_configured_host_name_overrides_the_containers(
    host: Host, runtime: Runtime, lan: Lan, option: str
) -> None:
    provide(host, {"option": option, "value": "fixed"})
    runtime.run("c1")
    assert names(lan) == ["fixed"]


def test_host_name_is_sent_with_other_configured_options(host: Host, runtime: Runtime, lan: Lan) -> None:
    provide(host, {"option": "vendor-class-identifier", "value": "of-test"})
    runtime.run("c1")
    assert names(lan) == ["container"] and lan.seen("vendor class: of-test")


def test_attach_sends_the_host_name(host: Host, runtime: Runtime, lan: Lan) -> None:
    runtime.run("c1", hooks={})
    host.run(CNIHOOK, "attach", "c1")
    assert names(lan) == ["container"]
    host.run(CNIHOOK, "detach", "c1")


def test_command_sends_its_host_name(host: Host, lan: Lan) -> None:
    host.run(RUN, "--hostname", "cmd", "true")
    host.run(RUN, "true")
    assert lan.seen("client provides name: cmd") and not lan.seen("client provides name: (?!cmd)")


def test_reference_plugin_sends_the_host_name(host: Host, runtime: Runtime, lan: Lan) -> None:
    daemon = dhcp.reference_daemon(host)
    runtime.run("c1", "--cni-path", "/usr/lib/cni")
    assert names(lan) == ["container"]
    runtime.delete("c1")
    daemon.terminate()
    daemon.communicate(timeout=30)
