# SPDX-License-Identifier: Apache-2.0
"""
The annotations `cnihook.*` of a pod, which a runtime of Kubernetes passes to a plugin by a capability.

tests/e2e/containerd has a pod with them.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cnihook.request.option_table import TABLE
from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.runtimes.oci import CNIHOOK, bridge, configure, leases

CAPABILITY = "io.kubernetes.cri.pod-annotations"
MAC = "02:00:00:00:00:07"
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def network(**keys: Any) -> dict[str, Any]:
    conf = bridge("pods", "10.44.0.0/24", capabilities={CAPABILITY: True}, **keys)
    conf["plugins"][0]["ipam"]["ranges"].append([{"subnet": "fd00:44::/64"}])
    conf["plugins"][0]["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    return conf


@pytest.fixture
def pod(host: Host) -> Container:
    configure(host, network())
    host.leaves("file /run/cnihook/log/pod")  # of a repair
    return host.container()


def add(pod: Container, plugins: str = "", /, **annotations: object) -> subprocess.CompletedProcess[str]:
    """Attach as a runtime does that passes the annotations.  `plugins`: a folder of executables."""
    named = {f"cnihook.{name.replace('_', '-')}": text for name, text in annotations.items()}
    capability_args = {CAPABILITY: named | {"kubernetes.io/ingress-bandwidth": "10M"}}
    where = ("--cni-path", plugins) if plugins else ()
    argv = (
        "add",
        "pods",
        pod.path,
        "--container-id",
        "pod",
        "--capability-args",
        json.dumps(capability_args),
        *where,
    )
    outcome = pod.host.run(CNIHOOK, *argv, check=False)
    assert "Traceback" not in outcome.stderr
    return outcome


def delete(pod: Container) -> None:
    pod.host.run(CNIHOOK, "del", "pods", pod.path, "--container-id", "pod")


@pytest.mark.parametrize("is_executable", [False, True], ids=["built in", "executable"])
def test_interface_plugin_serves_them(host: Host, pod: Container, is_executable: bool) -> None:
    """An executable runs its IPAM plugin as another one, to which it passes the requests."""
    plugins = "/run/.host/plugins" if is_executable else ""
    if plugins:
        host.run(CNIHOOK, "install-plugins", plugins)
    outcome = add(
        pod, plugins, ip="10.44.0.7", ip6="fd00:44::7", mac_address=MAC, route="192.0.2.0/24=10.44.0.9"
    )

    assert outcome.returncode == 0, outcome.stderr
    assert pod.addresses("eth0") == ["10.44.0.7/24", "fd00:44::7/64"]
    assert pod.link("eth0")["address"] == MAC
    assert ("192.0.2.0/24", "10.44.0.9", "eth0") in pod.routes()
    assert ("default", "10.44.0.1", "eth0") in pod.routes()
    # CHECK and a repair have the same requests.
    pod.run("ip", "route", "delete", "192.0.2.0/24")
    assert host.run(CNIHOOK, "repair", "pod", check=False).returncode == 0
    assert ("192.0.2.0/24", "10.44.0.9", "eth0") in pod.routes() and len(leases(host, "pods")) == 2
    delete(pod)


@pytest.mark.needs("strace")
def test_start_of_a_pod_without_them_loads_no_module_for_them(
    host: Host, pod: Container, tmp_path: Path
) -> None:
    """Test that the plugin of such a pod does not import what takes 4 ms."""
    trace = ("strace", "-fqq", "--trace=openat", f"--output={tmp_path}/log")
    argv = ("add", "pods", pod.path, "--container-id", "pod", "--capability-args")
    env = base_environment() | {"CNIHOOK_DEBUG": "1"}  # without the file that has all modules
    for annotations, is_loaded in (
        ({"kubernetes.io/ingress-bandwidth": "10M"}, False),
        ({"cnihook.ip": "10.44.0.7"}, True),
    ):
        host.run(*trace, CNIHOOK, *argv, json.dumps({CAPABILITY: annotations}), env=env)
        assert ("/request/__pycache__/pod_annotations" in (tmp_path / "log").read_text()) is is_loaded
        delete(pod)


def test_pod_without_a_default_route(pod: Container) -> None:
    assert add(pod, no_default_route="true").returncode == 0
    assert all(dst != "default" for dst, _gateway, _link in pod.routes())
    delete(pod)


REFUSED = [entry for entry in TABLE if entry.annotation and entry.in_kubernetes]


@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry.name)
def test_what_kubernetes_has_a_field_for_is_refused(pod: Container, entry: Any) -> None:
    """An annotation without effect would be found out only later."""
    outcome = add(pod, **{entry.annotation.removeprefix("cnihook."): "x"})

    assert outcome.returncode == 1 and outcome.stderr.count("\n") == 1
    assert entry.annotation in outcome.stderr and entry.in_kubernetes in outcome.stderr
    assert leases(pod.host, "pods") == []


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"ips": "10.44.0.7"}, ("unknown annotation", "cnihook.ip,")),
        ({"ip": "10.44.0"}, ("annotation cnihook.ip='10.44.0'",)),
        ({"ip": 7}, ('"cnihook.ip" must be a string',)),
        ({"ip": "10.45.0.7"}, ("10.45.0.7",)),
        ({"mac-address": "01:00:00:00:00:07"}, ("multicast",)),
        ({"route": "192.0.2.0/24," * 10_000}, ("bytes; 65536 is the most",)),
        ({"ip": "\x1b[31m"}, ("cnihook.ip",)),
    ],
)
def test_malformed_annotation_is_refused(
    pod: Container, annotations: dict[str, object], words: tuple[str, ...]
) -> None:
    outcome = add(pod, **annotations)

    assert outcome.returncode == 1 and outcome.stderr.count("\n") == 1 and "\x1b" not in outcome.stderr
    assert all(word in outcome.stderr for word in words), outcome.stderr
    assert leases(pod.host, "pods") == []


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"allow": ["ip6"]}, "annotation cnihook.ip='10.44.0.7': \"allow\" in /etc/cnihook/config.json"),
        ({"networks": ["front"]}, '"networks" in /etc/cnihook/config.json allows front'),
        ({"allow": 7}, "/etc/cnihook/config.json"),
        ({"allow": ["ip"], "networks": ["pods"]}, ""),
    ],
)
def test_bounds_of_the_host_hold_for_pods(
    host: Host, pod: Container, bounds: dict[str, Any], words: str
) -> None:
    host.write("/etc/cnihook/config.json", json.dumps({"annotations": bounds}))
    host.leaves("* /etc/cnihook*")
    outcome = add(pod, ip="10.44.0.7")

    assert outcome.returncode == int(bool(words)) and words in outcome.stderr
    if not words:
        # A running pod keeps what it has, also if the bounds are narrower now.
        host.write("/etc/cnihook/config.json", json.dumps({"annotations": {"allow": []}}))
        host.run("ip", "link", "set", "br-pods", "down")
        assert host.run(CNIHOOK, "repair", "pod").returncode == 0
        assert "10.44.0.7/24" in pod.addresses("eth0")
        delete(pod)
    assert leases(host, "pods") == []


def test_chained_plugin_with_the_capability_refuses_them(host: Host, pod: Container) -> None:
    conf = network()
    conf["plugins"].append({"type": "tuning", "capabilities": {CAPABILITY: True}})
    configure(host, conf)

    outcome = add(pod, ip="10.44.0.7")
    assert outcome.returncode == 1 and "the plugin tuning has the capability" in outcome.stderr
    assert leases(host, "pods") == []
    assert add(pod).returncode == 0, "a pod without annotations of cnihook starts"
    delete(pod)


def test_request_that_the_ipam_plugin_cannot_serve_is_refused(host: Host, pod: Container) -> None:
    conf = network()
    conf["plugins"][0] = {"type": "dummy", "capabilities": {CAPABILITY: True}}
    configure(host, conf)

    outcome = add(pod, ip="10.44.0.7")
    assert outcome.returncode == 1 and "none of its plugins takes a requested address" in outcome.stderr
