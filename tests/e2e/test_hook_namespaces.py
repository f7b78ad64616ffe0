# SPDX-License-Identifier: Apache-2.0
"""Containers in their own, the host's or another container's namespace; container IDs in use elsewhere."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import Failed
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import (
    CNIHOOK,
    MYNET,
    RESULTS,
    Runtime,
    configure,
    hook,
    leases,
)


def test_container_in_a_user_namespace_is_attached(host: Host, runtime: Runtime) -> None:
    """The user namespace owns the container's network namespace; the hook runs outside of it."""
    configure(host, MYNET)
    folder = runtime.bundle("c1")
    config = runtime.config("c1")
    config["linux"]["namespaces"].append({"type": "user"})
    mapping = [{"containerID": 0, "hostID": 0, "size": 65536}]  # so that its root may read the bundle
    config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    (folder / "config.json").write_text(json.dumps(config))

    container = runtime.started("c1", runtime.start("c1"))

    assert (
        host.run("readlink", f"/proc/{container.pid}/ns/user").stdout
        != host.run("readlink", "/proc/1/ns/user").stdout
    )
    assert leases(host) == [container.address]
    container.exec("ping", "-c1", "-W30", "10.22.0.1")
    runtime.delete("c1")
    assert leases(host) == host.listdir(RESULTS) == []


def test_container_in_host_namespace_is_refused(host: Host, runtime: Runtime) -> None:
    """Otherwise the host itself would get the container's address, routes and firewall."""
    configure(host, MYNET)

    with pytest.raises(Failed) as refusal:
        runtime.run("c1", network=None)

    assert not runtime.knows("c1")
    log = host.run(CNIHOOK, "logs", "c1").stdout
    assert "shares the host's network namespace" in log
    assert 'add {"type": "network"} to linux.namespaces in ' in log
    if runtime.name == "runc":
        assert "shares the host's network namespace" in refusal.value.stderr
    host.leaves("file /run/cnihook/log/c1")


POD = {"io.kubernetes.cri-o.ContainerType": "container"}
ASKING = {"cnihook.networks": "mynet"}


@pytest.mark.parametrize(
    "annotations",
    [
        POD | ASKING,
        POD | {"k8s.v1.cni.cncf.io/networks": "mynet"},
        POD,
        {"io.kubernetes.cri.container-type": "sandbox"} | ASKING,
    ],
    ids=["cri-o", "multus", "without", "containerd"],
)
def test_pod_container_in_host_namespace_is_left_alone(
    host: Host, runtime: Runtime, annotations: dict[str, str]
) -> None:
    """Multus ignores such annotations too, and the pod must start."""
    configure(host, MYNET)
    runtime.run("c1", network=None, annotations=annotations)

    assert "left alone: it belongs to a pod" in host.run(CNIHOOK, "logs", "c1").stdout
    assert host.listdir(RESULTS) == []
    runtime.delete("c1")
    assert host.listdir("/run/cnihook/log") == []


def test_podman_pod_container_in_host_namespace_is_refused(host: Host, runtime: Runtime) -> None:
    """Podman sets the same annotation, but there the user requests the network."""
    configure(host, MYNET)
    with pytest.raises(Failed):
        runtime.run("c1", network=None, annotations=POD | ASKING | {"io.container.manager": "libpod"})
    host.leaves("file /run/cnihook/log/c1")


def test_container_that_joins_host_namespace_is_left_alone(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)

    assert runtime.run("c1", network={"type": "network", "path": "/proc/1/ns/net"}).links() == host.links()


def test_joined_namespace_is_left_alone(host: Host, runtime: Runtime) -> None:
    """The namespace's creator configures it: an engine, or the hook of the container that owns it."""
    configure(host, MYNET)
    first = runtime.run("c1")
    second = runtime.run("c2", network={"type": "network", "path": "/run/netns/c1"})

    assert second.address == first.address
    runtime.delete("c2")
    assert first.links() == {"lo", "eth0"}
    assert host.listdir(RESULTS) == ["mynet-c1-eth0"]


@pytest.mark.parametrize("way", ["annotation", "argument"])
def test_joined_namespace_is_attached_on_request(host: Host, runtime: Runtime, way: str) -> None:
    """Each container has its own interface, which is removed at its end; the namespace lives on."""
    configure(host, MYNET)
    first = runtime.run("c1")
    joined = {"type": "network", "path": "/run/netns/c1"}
    if way == "annotation":
        second = runtime.run("c2", network=joined, annotations=ASKING | {"cnihook.ip": "10.22.0.9"})
    else:
        second = runtime.run("c2", "--network", "mynet", "--ip", "10.22.0.9", network=joined)

    assert second.addresses("eth1") == ["10.22.0.9/16"]
    second.exec("ping", "-c1", "-W30", "10.22.0.1")
    assert host.listdir(RESULTS) == ["mynet-c1-eth0", "mynet-c2-eth1"]
    runtime.delete("c2")
    host.wait_for_endings()
    assert first.links() == {"lo", "eth0"} and host.listdir(RESULTS) == ["mynet-c1-eth0"]
    first.exec("ping", "-c1", "-W30", "10.22.0.1")


@pytest.mark.parametrize(
    ("arguments", "annotations"),
    [
        ((), POD | ASKING),
        ((), POD | {"k8s.v1.cni.cncf.io/networks": "mynet"}),
        (("--network", "mynet"), {"io.container.manager": "libpod"}),
        (("--network", "mynet"), {"io.container.manager": "cri-o"}),
    ],
    ids=["cri-o", "multus", "hooks.d of podman", "hooks.d of cri-o"],
)
def test_joined_namespace_of_a_pod_is_left_alone(
    host: Host, runtime: Runtime, arguments: tuple[str, ...], annotations: dict[str, str]
) -> None:
    """Another program serves a pod's annotations, and a hook in hooks.d has the same arguments for all."""
    configure(host, MYNET)
    host.run("ip", "netns", "add", "pod")
    joined = {"type": "network", "path": "/run/netns/pod"}

    assert runtime.run("c1", *arguments, network=joined, annotations=annotations).links() == {"lo"}
    assert "left alone" in host.run(CNIHOOK, "logs", "c1").stdout
    runtime.delete("c1")
    host.run("ip", "netns", "delete", "pod")
    host.leaves("dir /run/netns", "mount /run/netns")


def test_hook_in_wrong_stage_gets_a_hint(host: Host, runtime: Runtime) -> None:
    """A createContainer hook runs inside the container, and runc passes it the PID seen there, which is 1.

    If the host's /proc is still mounted, PID 1 leads to the host's own namespace.
    """
    configure(host, MYNET)

    with pytest.raises(Failed):
        runtime.run("c1", hooks={"createContainer": [hook("createRuntime")]})

    assert "register the hook under createRuntime" in host.read("/run/cnihook/log/c1")
    assert leases(host) == []
    host.leaves("file /run/cnihook/log/c1")


# Two containers with one ID


def test_container_id_of_another_runtime_is_refused(host: Host, runtime: Runtime, rootfs: Path) -> None:
    """The first container, of another runtime or --root, keeps its attachments until its end."""
    configure(host, MYNET)
    first = runtime.run("c1")
    name = "crun" if runtime.name == "runc" else "runc"
    with closing(Runtime(host, name, rootfs)) as other:
        with pytest.raises(Failed) as refused:
            other.run("c1")

        if name == "runc":  # crun does not pass it on
            assert "give this one another ID" in str(refused.value)
        assert (
            f"another container c1 lives, process {first.pid}, and is on network mynet; give this one"
            in first.log
        )
        assert leases(host) == [first.address]
        first.exec("ping", "-c1", "-W30", "10.22.0.1")
        assert not other.knows("c1")
    runtime.delete("c1")

    assert leases(host) == host.listdir(RESULTS) == []
    host.leaves("file /run/cnihook/log/c1")  # the log of a failure is kept


def test_container_id_of_a_kept_namespace_is_refused(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    priv_net_run = str(CHECKOUT / "scripts" / "priv-net-run")
    host.run(priv_net_run, "--netns", "c1", "true")

    with pytest.raises(Failed):
        runtime.run("c1")

    log = host.read("/run/cnihook/log/c1")
    assert "another container c1 lives, the namespace /run/netns/c1, and is on network mynet" in log
    assert leases(host) == ["10.22.0.2"]
    host.run(priv_net_run, "--netns", "c1", "--delete")
    assert leases(host) == []
    host.leaves("file /run/cnihook/log/c1")
