# SPDX-License-Identifier: Apache-2.0
"""Containers of runc and crun with the hook in their config.json."""

import json
import signal

import pytest

from tests.support.host import sockets
from tests.support.host.host import Host, Outside
from tests.support.host.leaks import HostState
from tests.support.host.namespace import Failed
from tests.support.plugins.cni import REFERENCE, reference
from tests.support.runtimes.oci import (
    CNIHOOK,
    LOOPBACK,
    MYNET,
    NET_D,
    PASS_ON,
    RESULTS,
    Runtime,
    bridge,
    call_hook,
    calls,
    configure,
    external,
    hook,
    leases,
)


def test_containers_reach_each_other_the_gateway_and_outside(host: Host, runtime: Runtime) -> None:
    """Another machine has no route to a container, so it must see the host's address."""
    configure(host, MYNET)
    outside = host.outside()
    first, second = runtime.run("c1"), runtime.run("c2")

    assert [first.address, second.address] == ["10.22.0.2", "10.22.0.3"]
    first.exec("ping", "-c1", "-W30", second.address)
    first.exec("ping", "-c1", "-W30", "10.22.0.1")
    assert sockets.connect(first, second, second.address) == first.address
    assert sockets.connect(first, host, "10.22.0.1") == first.address
    assert sockets.connect(first, outside, Outside.ADDRESS) == Outside.HOST


def test_ipv4_and_ipv6_reach_outside(host: Host, runtime: Runtime) -> None:
    both = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "fd00:22::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    configure(host, bridge("mynet", "", ipMasq=True, ipam=both))
    outside = host.outside()
    container = runtime.run()

    assert sockets.connect(container, outside, Outside.ADDRESS) == Outside.HOST
    assert sockets.connect(container, outside, Outside.ADDRESS6) == Outside.HOST6


def test_network_lasts_from_start_to_end_of_the_program(host: Host, runtime: Runtime) -> None:
    """The program runs in the foreground, as users try it first.  Its end releases the network."""
    configure(host, MYNET)
    bundle = runtime.bundle("c1", command=("ip", "-4", "-o", "addr"))

    shown = runtime.call("run", "--bundle", str(bundle), "c1").stdout

    assert "inet 10.22.0.2/16" in shown and "inet 127.0.0.1/8" in shown
    assert leases(host) == host.listdir(RESULTS) == []


def test_network_is_up_after_create(host: Host, runtime: Runtime) -> None:
    """`create` attaches the container; `start` may never follow."""
    configure(host, MYNET)
    runtime.create("c1")

    assert runtime.state("c1")["status"] == "created"
    assert leases(host) == ["10.22.0.2"]
    runtime.delete("c1")
    assert leases(host) == host.listdir(RESULTS) == []


def test_container_is_attached_to_all_networks_in_order(host: Host, runtime: Runtime) -> None:
    """The first two files are the ones users have copied since 2016; one of them has no name."""
    files = {"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK}
    configure(host, **files, **{"20-other.conflist": json.dumps(bridge("other", "10.23.0.0/24"))})
    container = runtime.run()

    assert container.addresses("eth0") == ["10.22.0.2/16"]
    assert container.addresses("eth1") == ["10.23.0.2/24"]
    assert container.addresses("lo") == ["127.0.0.1/8", "::1/128"]
    assert container.links() == {"lo", "eth0", "eth1"}
    assert host.listdir(RESULTS) == ["loopback-c1-lo", "mynet-c1-eth0", "other-c1-eth1"]


def test_default_network_is_used_without_any_configuration(host: Host, runtime: Runtime) -> None:
    container = runtime.run()

    container.exec("ping", "-c1", "-W30", "10.88.64.1")
    assert "using the built-in default network" in host.run(CNIHOOK, "logs", "c1").stdout


def test_containers_started_in_parallel_get_different_addresses(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    names = [f"c{number}" for number in range(10)]
    for name in names:
        runtime.bundle(name)

    starting = {name: runtime.start(name) for name in names}
    running = [runtime.started(name, process) for name, process in starting.items()]

    assert len({container.address for container in running}) == 10
    assert len(leases(host)) == 10
    runtime.delete_at_once(names)
    assert leases(host) == host.listdir(RESULTS) == []


def test_containers_start_while_others_end(host: Host, runtime: Runtime) -> None:
    """The last container's end removes the bridge and the table just when the next one needs them."""
    configure(host, MYNET)
    outside = host.outside()
    last = runtime.run("c0")
    for number in range(1, 6):
        name = f"c{number}"
        runtime.bundle(name)
        starting = runtime.start(name)
        runtime.delete_at_once([f"c{number - 1}"])
        last = runtime.started(name, starting)
        assert leases(host) == [last.address]
        assert sockets.connect(last, outside, Outside.ADDRESS) == Outside.HOST


@pytest.mark.parametrize("how", ["environment", "argument"])
def test_cni_path_selects_reference_plugins(host: Host, runtime: Runtime, how: str) -> None:
    """An explicit path overrides built-in plugins.  The container's network behaves the same."""
    host.leaves(*reference().leaves)
    outside = host.outside()
    configure(host, MYNET, LOOPBACK)
    if how == "environment":
        first, second = (runtime.run(name, env={"CNI_PATH": str(REFERENCE)}) for name in ("c1", "c2"))
    else:
        first, second = (runtime.run(name, "--cni-path", str(REFERENCE)) for name in ("c1", "c2"))

    assert "CNI-" in host.run("iptables", "-t", "nat", "-S").stdout, (
        "the chains that only the reference creates"
    )
    first.exec("ping", "-c1", "-W30", "10.22.0.1")
    assert sockets.connect(first, second, second.address) == first.address
    assert sockets.connect(first, outside, Outside.ADDRESS) == Outside.HOST


def test_external_and_built_in_plugins_share_a_chain(host: Host, runtime: Runtime) -> None:
    """Each plugin gets the previous result, from either kind.  IPAM plugins are found in the same way."""
    path = external(host, "outer", PASS_ON)
    address = {"type": "static", "addresses": [{"address": "10.24.0.5/24", "gateway": "10.24.0.1"}]}
    before = {"type": "bridge", "bridge": "br0", "isGateway": True, "ipam": address}
    host.write("/run/.host/reference/ptp", f"#!/bin/sh\nexec {REFERENCE}/ptp\n", 0o755)
    ptp = {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.25.0.0/24"}}
    configure(
        host,
        {
            "cniVersion": "0.4.0",
            "name": "inner",
            "plugins": [before, {"type": "outer"}, {"type": "loopback"}],
        },
        {"cniVersion": "0.3.1", "name": "around", "plugins": [ptp, {"type": "outer"}, {"type": "loopback"}]},
    )
    container = runtime.run("c1", "--cni-path", f"{path}:/run/.host/reference")

    assert container.addresses("eth0") == ["10.24.0.5/24"]
    assert container.addresses("eth1") == ["10.25.0.2/24"]
    container.exec("ping", "-c1", "-W30", "10.24.0.1")
    container.exec("ping", "-c1", "-W30", "10.25.0.1")
    runtime.delete("c1")
    assert calls(host) == ["outer ADD", "outer ADD", "outer DEL", "outer DEL"]


def test_record_holds_what_the_container_got(host: Host, runtime: Runtime) -> None:
    """The record has libcni's format, so libcni's users can read it."""
    configure(host, MYNET)
    container = runtime.run()

    record = json.loads(host.read(f"{RESULTS}/mynet-c1-eth0"))
    assert record["kind"] == "cniCacheV1"
    assert record["containerId"] == "c1"
    assert record["netns"] == "/run/netns/c1"
    assert record["result"]["ip4"]["ip"] == f"{container.address}/16"


def test_namespace_is_named_after_the_container(host: Host, runtime: Runtime) -> None:
    """The name makes `ip netns exec ID tcpdump` possible."""
    configure(host, MYNET)
    runtime.run()

    assert "10.22.0.2" in host.run("ip", "netns", "exec", "c1", "ip", "addr").stdout


def test_hook_arguments_and_annotation_choose_networks(host: Host, runtime: Runtime) -> None:
    """Arguments override the annotation; the annotation overrides the default, which is all networks."""
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    annotation = {"cnihook.networks": "other:net7"}

    by_annotation = runtime.run("c1", annotations=annotation)
    by_argument = runtime.run("c2", "--network", "mynet:mine", annotations=annotation)

    assert by_annotation.links() == {"lo", "net7"}
    assert by_argument.links() == {"lo", "mine"}


# The end


def test_poststop_needs_no_configuration(host: Host, runtime: Runtime) -> None:
    """Administrators edit and remove networks while containers run.  DEL must work nevertheless."""
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    runtime.run()
    for name in host.listdir(NET_D):
        host.run("rm", f"{NET_D}/{name}")
    (runtime.folder("c1") / "config.json").write_text("{}")

    runtime.delete("c1")

    assert host.listdir(RESULTS) == []


def test_poststop_needs_no_bundle(host: Host, runtime: Runtime) -> None:
    """runc runs the hook nevertheless.  crun cannot, so gc releases the attachment."""
    configure(host, MYNET)
    runtime.run()
    runtime.remove_bundle("c1")

    for _attempt in range(20):
        try:
            runtime.delete("c1")
            break
        except Failed as error:
            # crun writes to the hook that it could not start, and gets SIGPIPE if that has ended already.
            if (runtime.name, error.status) != ("crun", -signal.SIGPIPE):
                raise

    if runtime.name == "crun":
        assert leases(host) == ["10.22.0.2"]
        assert host.run(CNIHOOK, "gc").stdout == "released c1: mynet eth0 10.22.0.2/16\n"
    assert leases(host) == host.listdir(RESULTS) == []


def test_poststop_can_come_twice(host: Host, runtime: Runtime) -> None:
    """Podman calls it when the container stops, and its runtime when the container is removed."""
    configure(host, MYNET)
    runtime.run().kill()
    stopped = {"ociVersion": "1.0.2", "id": "c1", "status": "stopped", "bundle": "/nowhere"}

    assert call_hook(host, "poststop", stopped).returncode == 0
    assert host.listdir(RESULTS) == []
    assert call_hook(host, "poststop", stopped).returncode == 0
    runtime.delete("c1")


def test_killed_container_leaves_nothing(host: Host, runtime: Runtime) -> None:
    """The namespace may be gone before poststop runs."""
    configure(host, MYNET)
    runtime.run().kill()

    runtime.delete("c1")

    assert leases(host) == host.listdir(RESULTS) == []


def test_new_container_of_the_same_name_releases_the_old_one(host: Host, runtime: Runtime) -> None:
    """No poststop ran, as after a crash of the runtime: createRuntime releases the old attachments first."""
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    only_start = {"createRuntime": [hook("createRuntime")]}
    runtime.run("c1", hooks=only_start).kill()
    runtime.delete("c1")
    assert leases(host) == ["10.22.0.2"]

    again = runtime.run("c1", "--network", "mynet")

    assert leases(host) == [again.address]
    assert leases(host, "other") == []
    assert host.listdir(RESULTS) == ["mynet-c1-eth0"]
    again.exec("ping", "-c1", "-W30", "10.22.0.1")


# A start that does not complete


def test_hook_works_with_an_empty_environment(host: Host, runtime: Runtime) -> None:
    """Podman's poststop has an empty environment.  Plugins must find their programs, and nft its library."""
    outside = host.outside()
    path = external(host, "outer", f'[ -n "$PATH" ] && command -v nft > /dev/null || exit 9\n{PASS_ON}')
    network = bridge("mynet", "10.22.0.0/16", ipMasq=True)
    network["plugins"][0]["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    network["plugins"].append({"type": "outer"})
    configure(host, network)

    container = runtime.run("c1", "--cni-path", path, env={})

    assert sockets.connect(container, outside, Outside.ADDRESS) == Outside.HOST
    runtime.delete("c1")
    assert calls(host) == ["outer ADD", "outer DEL"]


def test_hostile_python_variables_have_no_effect(host: Host, runtime: Runtime) -> None:
    """Runtimes pass their environment on, but PYTHONPATH from there must not run code in the hook."""
    configure(host, MYNET)
    host.write("/run/.host/evil/os.py", "raise SystemExit('taken over')\n")
    variables = {"PYTHONPATH": "/run/.host/evil", "PYTHONHOME": "/run/.host/evil", "PYTHONINSPECT": "1"}

    assert runtime.run("c1", env=variables).address == "10.22.0.2"


def test_leak_check_sees_an_attachment(host: Host, runtime: Runtime) -> None:
    """The leak check of all these tests compares states, so the state must contain an attachment."""
    configure(host, MYNET)
    runtime.run()

    now: HostState = host.state()
    new = "\n".join(now.lines - host.before.lines)
    for part in (
        "link cni0",
        "10.22.0.1/16",
        "cnihook",
        "mynet-c1-eth0",
        "networks/mynet/10.22.0.2",
        "mount /run/netns",
    ):
        assert part in new, part
