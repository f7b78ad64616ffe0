# SPDX-License-Identifier: Apache-2.0
"""Pods of containerd on a network of the built-in plugins, as a kubelet starts and stops them."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.host.host import Host, Outside
from tests.support.plugins.bandwidth import limits
from tests.support.plugins.ports import seen
from tests.support.runtimes.containerd import TCP, UDP, Containerd
from tests.support.runtimes.cri import CallError
from tests.support.runtimes.oci import CNIHOOK, RESULTS, calls, external, leases, wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("containerd", "curl", "runc")]

RANGES = [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd00:44::/64"}]]
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            **{"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True},
            "ipam": {"type": "host-local", "ranges": RANGES, "routes": ROUTES},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "watch"},
    ],
}
LIMITS = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "4M"}


@pytest.fixture
def watched(containerd: Containerd) -> Containerd:
    """Return the daemon, whose network has a last plugin that logs its calls."""
    slow = f"if [ -e {containerd.plugins}/slow ]; then touch {containerd.plugins}/waits; sleep 1; fi"
    external(containerd.host, "watch", f"{slow}; [ $CNI_COMMAND != ADD ] || prev", containerd.plugins)
    containerd.host.run("rm", "-f", f"{containerd.plugins}/calls")
    return containerd


def expect_nothing(host: Host) -> None:
    """Assert that no pod has a lease, a record or a namespace."""
    assert (leases(host, "pods"), host.listdir(RESULTS), host.listdir("/run/netns")) == ([], [], ["outside"])


def test_pod_gets_its_network_and_leaves_nothing(watched: Containerd, host: Host, outside: Outside) -> None:
    """Test both IP versions, published ports and limits.  A kubelet may stop a pod again."""
    pod = watched.run("web", [(TCP, 80, 8080), (UDP, 53, 5353, "127.0.0.1")], LIMITS)

    assert len(pod.ips) == 2 and pod.ips == [address.partition("/")[0] for address in pod.addresses("eth0")]
    assert pod.routes()[0][:2] == ("default", "10.44.0.1")
    assert seen(outside, pod, Outside.HOST, 8080) == Outside.ADDRESS
    assert seen(outside, pod, Outside.HOST6, 8080) == Outside.ADDRESS6
    seen(host, pod, "127.0.0.1", 5353, 53, protocol="udp")
    with pytest.raises(OSError):
        seen(outside, pod, Outside.HOST, 5353, 53, protocol="udp", timeout=0.1)
    # The burst of containerd is 2^32 - 1 bits.
    assert sorted((each["rate"], each["burst"]) for each in limits(host).values()) == [
        (500_000, 50_000), (1_250_000, 125_000),
    ]  # fmt: skip
    listing = ("ps", "--format", "{pod} {network} {ifname} {ports}")
    ports = "8080->80/tcp,127.0.0.1:5353->53/udp"
    assert host.run(CNIHOOK, *listing).stdout == f"shop/web pods eth0 {ports}\n"
    loopback = host.run(CNIHOOK, *listing, "--network", "cni-loopback").stdout
    assert loopback == "shop/web cni-loopback lo \n"
    assert [line.split()[0] for line in host.run(CNIHOOK, "stats", "--once").stdout.splitlines()[1:]] == [
        "shop/web"
    ]
    assert host.run(CNIHOOK, "check", "--all", "--cni-path", watched.plugins).stdout.count("well ") == 2

    pod.stop()
    expect_nothing(host)
    pod.stop()
    pod.remove()
    pod.remove()
    assert calls(host, watched.plugins).count("watch DEL") == 3


@pytest.mark.parametrize("is_process", [False, True], ids=["pod", "process"])
def test_taken_host_port_fails_the_pod_alone(watched: Containerd, host: Host, is_process: bool) -> None:
    """The kubelet shows the error as an event of the pod, so it names the port and its holder."""
    first = None if is_process else watched.run("first", [(TCP, 80, 8080)])
    listener = host.popen("busybox", "nc", "-l", "-p", "8080") if is_process else None
    wait_for(lambda: first or ":8080 " in host.run("ss", "-ltnH").stdout, "the process that listens")

    with pytest.raises(CallError) as failure:
        watched.run("second", [(TCP, 80, 8080)])
    text = str(failure.value)
    assert 'plugin type="portmap" failed (add): ' in text
    assert "host port 8080/tcp is taken: " in text and (first.id if first else "(busybox)") in text
    assert len(leases(host, "pods")) == (2 if first else 0)

    if first:
        first.stop()
        first.remove()
    if listener:
        listener.kill()
        listener.wait()
    assert watched.pods() == []
    expect_nothing(host)


def test_stop_after_a_restart_and_without_the_namespace(watched: Containerd, host: Host) -> None:
    """containerd keeps pods over a restart; a namespace can be gone when it stops one."""
    running, damaged = watched.run("running", [(TCP, 80, 8080)]), watched.run("damaged", [], LIMITS)
    watched.stop()
    host.run("ip", "netns", "delete", damaged.path.rpartition("/")[2])
    watched.start()

    assert sorted(watched.pods()) == sorted([running.id, damaged.id])
    assert running.ips[0] == running.addresses("eth0")[0].partition("/")[0]
    assert seen(host, running, "127.0.0.1", 8080)
    for pod in (damaged, running):
        pod.stop()
        pod.remove()
    expect_nothing(host)
    assert {*calls(host, watched.plugins)} == {"watch ADD", "watch DEL"}, "it calls neither STATUS nor GC"


def test_pod_of_a_killed_containerd_can_be_stopped(watched: Containerd, host: Host) -> None:
    """containerd lists the pod, but has no result of its ADD, which it passes to DEL otherwise.

    Without one, containerd 1.7 calls no DEL.  Then gc releases the pod, except the record of lo: only
    detach removes a record of libcni that names no process.
    """
    host.write(f"{watched.plugins}/slow", "")
    with ThreadPoolExecutor(1) as thread:
        started = thread.submit(watched.run, "web", [(TCP, 80, 8080)], LIMITS)
        wait_for(lambda: host.exists(f"{watched.plugins}/waits"), "the last plugin")
        watched.stop("-KILL")
        with pytest.raises(ConnectionError):
            started.result()
    host.run("rm", f"{watched.plugins}/slow", f"{watched.plugins}/waits")
    watched.start()

    (pod,) = watched.pods()
    assert len(leases(host, "pods")) == 2
    watched.call("StopPodSandbox", {1: pod})
    watched.call("RemovePodSandbox", {1: pod})
    if leases(host, "pods"):
        host.run(CNIHOOK, "gc", env={"CNI_PATH": watched.plugins})
        host.run(CNIHOOK, "detach", pod)
    expect_nothing(host)
