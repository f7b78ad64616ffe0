# SPDX-License-Identifier: Apache-2.0
"""An ADD that is rejected, for any key: nothing stays, and the corrected file works at once."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from cnihook.protocol import invoke
from tests.support.host.host import Container, Host
from tests.support.host.leaks import compare
from tests.support.runtimes.oci import CNIHOOK, NET_D, RESULTS, call_hook, external

HOST_LOCAL = {"type": "host-local", "subnet": "10.3.0.0/24"}
BRIDGE = {"type": "bridge", "bridge": "br3", "isGateway": True, "ipMasq": True, "ipam": HOST_LOCAL}
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]

# By type: the plugins of a network with it, and the keys that it reads.
CHAINS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "bridge": (
        [BRIDGE],
        "bridge isGateway isDefaultGateway forceAddress ipMasq ipMasqBackend mtu hairpinMode promiscMode"
        " vlan vlanTrunk preserveDefaultVlan macspoofchk disableContainerInterface portIsolation ipam",
    ),
    "ptp": ([{"type": "ptp", "ipMasq": True, "ipam": HOST_LOCAL}], "ipMasq ipMasqBackend mtu dns ipam"),
    "tap": (
        [{"type": "tap", "ipam": HOST_LOCAL}],
        "multiQueue mtu mac selinuxContext bridge owner group ipam",
    ),
    "macvlan": (
        [{"type": "macvlan", "master": "up0", "ipam": HOST_LOCAL}],
        "master mode mtu linkInContainer ipam",
    ),
    "host-local": ([BRIDGE], "subnet ranges rangeStart rangeEnd gateway routes dataDir resolvConf"),
    "static": (
        [BRIDGE | {"ipam": {"type": "static", "addresses": [{"address": "10.3.0.9/24"}]}}],
        "addresses routes dns",
    ),
    "dhcp": ([BRIDGE], ""),  # below
    "portmap": (
        [BRIDGE, {"type": "portmap"}],
        "snat masqAll markMasqBit externalSetMarkChain conditionsV4 conditionsV6 backend runtimeConfig",
    ),
    "firewall": (
        [BRIDGE, {"type": "firewall"}],
        "backend iptablesAdminChainName firewalldZone ingressPolicy",
    ),
    "bandwidth": (
        [BRIDGE, {"type": "bandwidth"}],
        "ingressRate ingressBurst egressRate egressBurst unshapedSubnets shapedSubnets runtimeConfig",
    ),
    "tuning": ([BRIDGE, {"type": "tuning"}], "dataDir sysctl mac mtu txQLen promisc allmulti args"),
    "sbr": ([BRIDGE, {"type": "sbr"}], "table"),
    "vrf": ([BRIDGE, {"type": "vrf", "vrfname": "red"}], "vrfname table"),
    "host-device": ([{"type": "host-device", "device": "up0"}], "device hwaddr kernelpath pciBusID ipam"),
}
WAYS = ["hook", "cnihook add"]


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    host.leaves(
        f"file {NET_D}/*", "sysctl *", "dir /run/cni*", "file /run/cnihook/log/*", "dir /run/cnihook*"
    )
    host.outside()
    host.save_state()
    yield host.container("x", process=True)


def configure(host: Host, plugins: list[dict[str, Any]]) -> None:
    host.write(f"{NET_D}/q.conflist", json.dumps({"cniVersion": "1.0.0", "name": "q", "plugins": plugins}))


def call(host: Host, container: Container, way: str, up: bool) -> Any:
    if way == "hook":
        state = {"ociVersion": "1.0", "id": "x", "pid": container.pid if up else 0, "bundle": "/nowhere"}
        return call_hook(host, "createRuntime" if up else "poststop", state)
    words = ("add", "q", container.path) if up else ("del", "q", container.path)
    return host.run(CNIHOOK, *words, check=False)


def changed(kind: str, key: str, value: Any) -> list[dict[str, Any]]:
    plugins: list[dict[str, Any]] = json.loads(json.dumps(CHAINS[kind][0]))
    if kind in ("host-local", "static", "dhcp"):
        plugins[0]["ipam"] = plugins[0]["ipam"] | {"type": kind, key: value}
    else:
        plugins[-1][key] = value
    return plugins


def test_every_type_is_covered() -> None:
    assert set(CHAINS) == set(invoke.built_in_types()) - {"loopback", "dummy", "ipvlan", "vlan"}


@pytest.mark.parametrize("kind", sorted(set(CHAINS) - {"dhcp"}))
def test_rejected_value_leaves_nothing(host: Host, container: Container, kind: str) -> None:
    """No key has these types: a list of a number, and a boolean as text."""
    rejected = 0
    for number, key in enumerate(CHAINS[kind][1].split()):
        for value, way in zip(("true", [1]), WAYS if number % 2 else WAYS[::-1], strict=True):
            rejected += tried(host, container, changed(kind, key, value), way)
    assert rejected
    compare(host.before, host.state, host.stay)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key,value", [("daemonSocketPath", 7), ("request", "x"), ("provide", [7])])
def test_rejected_value_of_dhcp_leaves_nothing(
    host: Host, container: Container, key: str, value: object, way: str
) -> None:
    assert tried(host, container, changed("dhcp", key, value), way)
    compare(host.before, host.state, host.stay)


def tried(host: Host, container: Container, plugins: list[dict[str, Any]], way: str) -> bool:
    """Attach and detach; return True if the configuration is rejected."""
    configure(host, plugins)
    outcome = call(host, container, way, up=True)
    if outcome.returncode:
        assert not host.exists(RESULTS) or host.listdir(RESULTS) == [], (plugins, outcome)
        assert "while undoing" not in outcome.stderr and "on record" not in outcome.stderr
    elif way == "hook":  # the container is alive, so poststop would leave it alone
        host.run(CNIHOOK, "detach", "x")
    else:
        assert call(host, container, way, up=False).returncode == 0
    return bool(outcome.returncode)


@pytest.mark.parametrize("way", WAYS)
def test_corrected_file_works_at_once(host: Host, container: Container, way: str) -> None:
    configure(host, [BRIDGE | {"ipMasq": "true"}])
    outcome = call(host, container, way, up=True)
    assert outcome.returncode == 1 and outcome.stderr.count("ipMasq") == 1, outcome
    assert call(host, container, way, up=False).returncode == 0
    for words in (("gc",), ("gc", "q", "--all")):
        assert host.run(CNIHOOK, *words, check=False).returncode == 0 or words[1:]

    configure(host, [BRIDGE])
    assert call(host, container, way, up=True).returncode == 0
    assert container.addresses("eth0")
    if way == "hook":
        host.run(CNIHOOK, "detach", "x")
    else:
        assert call(host, container, way, up=False).returncode == 0
    compare(host.before, host.state, host.stay)


def test_record_of_a_rejected_configuration_is_released(host: Host, container: Container) -> None:
    """An earlier version left such a record: its DEL failed because of the value that ADD had refused."""
    configure(host, [BRIDGE])
    assert call(host, container, "cnihook add", up=True).returncode == 0
    (name,) = host.listdir(RESULTS)
    record = json.loads(host.read(f"{RESULTS}/{name}"))
    config = json.loads(base64.b64decode(record["config"]))
    config["plugins"][0]["hairpinMode"] = "true"
    record["config"] = base64.b64encode(json.dumps(config).encode()).decode()
    del record["result"]
    host.write(f"{RESULTS}/{name}", json.dumps(record))

    assert call(host, container, "cnihook add", up=True).returncode == 0, (
        "the record belongs to an ADD that did not end"
    )
    assert call(host, container, "cnihook add", up=False).returncode == 0
    compare(host.before, host.state, host.stay)


REFUSE = """\
printf '{"cniVersion":"1.0.0","code":999,"msg":"cannot unmarshal string into field ipMasq"}'; exit 1
"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["first", "behind"])
def test_executable_that_refuses_add_and_del_alike_leaves_no_record(
    host: Host, container: Container, place: str, way: str
) -> None:
    """The reference plugins do so if they cannot parse their configuration."""
    folder = external(host, "strict", REFUSE)
    others = [BRIDGE] if place == "behind" else []
    configure(host, [*others, {"type": "strict"}, {"type": "portmap"}])

    state = {"ociVersion": "1.0", "id": "x", "pid": container.pid, "bundle": "/nowhere"}
    if way == "hook":
        outcome = call_hook(host, "createRuntime", state, "--cni-path", folder)
    else:
        outcome = host.run(CNIHOOK, "add", "q", container.path, check=False, env={"CNI_PATH": folder})
    assert outcome.returncode == 1 and outcome.stderr.count("cannot unmarshal") == 1, outcome
    assert host.listdir(RESULTS) == []
    compare(host.before, host.state, host.stay)
