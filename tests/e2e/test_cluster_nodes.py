# SPDX-License-Identifier: Apache-2.0
"""The agent of a Kubernetes node, whose store is a server that stands for the API server."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from cnihook.cluster import nodes
from tests.support.cluster.api_server import ApiServer, node
from tests.support.cluster.etcd import Certificates
from tests.support.cluster.hosts import PROGRAM
from tests.support.host.host import Host
from tests.support.host.namespace import Process
from tests.support.wait import wait_for

pytestmark = [pytest.mark.needs("openssl", "nft"), pytest.mark.root]

EXAMPLE = Path(__file__).resolve().parents[2] / "oci-examples" / "kubernetes"
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
BLOCK = "/var/lib/cnihook/cluster/pods/block.json"
SETTINGS = "/run/pods.json"


def documents() -> dict[str, dict[str, object]]:
    """Return the objects of the example by their kind."""
    objects = list(yaml.safe_load_all((EXAMPLE / "cnihook.yaml").read_text()))
    return {each["kind"]: each for each in objects}


def settings() -> str:
    text = documents()["ConfigMap"]["data"]["pods.json"]  # type: ignore[index]
    assert isinstance(text, str)
    return text


def start_agent(host: Host, port: int) -> Process:
    environment = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(port),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    options = ("--network", "pods", "--node", "n1", "--settings", SETTINGS)
    log = ("sh", "-c", 'exec "$@" 2>> /run/agent.log', "sh")
    return host.popen(*log, *PROGRAM, "agent", *options, env=environment)


def end(agent: Process) -> None:
    agent.terminate()
    assert agent.wait(30) == 0


def routes(host: Host) -> set[str]:
    # Not as JSON: ip prints the key `dst` twice, of the route and of its encapsulation.
    lines = host.run("ip", "route", "show", "proto", "117").stdout.splitlines()
    return {line.split()[0] for line in lines} - {"unreachable"}


def wait_for_routes(host: Host, *expected: str) -> None:
    wait_for(
        lambda: routes(host) == set(expected),
        lambda: f"{expected}, not {routes(host)}: {host.read('/run/agent.log')}",
    )


def wait_for_annotation(server: ApiServer) -> dict[str, str]:
    def written() -> dict[str, str] | None:
        annotations: dict[str, str] = server.nodes["n1"]["metadata"]["annotations"]
        return annotations if "cnihook.io/pods" in annotations else None

    annotations = wait_for(written, "the annotation of the node")
    assert annotations
    return annotations


def test_agent_of_a_node_makes_its_routes(host: Host, tmp_path: Path) -> None:
    """Take them from the Nodes, as they change, and from its own files while the API server is away."""
    certificates = Certificates(tmp_path)
    host.leaves("*")
    host.run("ip", "link", "set", "lo", "up")
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    host.run("ip", "address", "add", "172.16.0.1/24", "dev", "eth0")
    for link in ("eth0", "eth1"):
        host.run("ip", "link", "set", link, "up")
    host.write("/etc/machine-id", f"{1:032x}\n")
    host.write(f"{ACCOUNT}/ca.crt", Path(certificates.ca).read_text())
    host.write(f"{ACCOUNT}/token", "first")
    host.write(SETTINGS, settings())
    with host.inside(lambda: ApiServer(certificates.server)) as server:
        for number in (1, 2):
            server.put(node(number, f"10.244.{number}.0/24"))
        annotated = server.nodes["n2"]
        value = json.dumps({"host": f"{2:032x}", "name": "n2", "claim": "c2", "address": "172.16.0.2",
                            "mac": "02:00:00:00:00:02"})  # fmt: skip
        annotated["metadata"]["annotations"]["cnihook.io/pods"] = value
        server.put(annotated)

        agent = start_agent(host, server.port)
        wait_for_routes(host, "10.244.2.0/24")
        wait_for(lambda: host.exists(BLOCK), "the block")
        assert json.loads(host.read(BLOCK))["blocks"] == ["10.244.1.0/24"]
        annotations = wait_for_annotation(server)
        assert json.loads(annotations["cnihook.io/pods"])["mac"] == host.link("vx-pods")["address"]
        assert annotations["other"] == "kept"

        server.delete("n2")
        wait_for_routes(host)
        server.put(annotated)
        wait_for_routes(host, "10.244.2.0/24")
        status = json.loads(host.read("/run/cnihook/cluster/pods.json"))
        assert status["connected"] and status["absent"] is None  # the API server does not say it
        end(agent)
        port = server.port

    # A boot while the API server is away.
    host.run("ip", "link", "delete", "vx-pods")
    agent = start_agent(host, port)
    wait_for_routes(host, "10.244.2.0/24")
    end(agent)


def test_agent_outside_of_a_pod_reports_it(host: Host) -> None:
    host.leaves("file /etc/machine-id", "file /run/*")
    host.write(SETTINGS, settings())
    host.write("/etc/machine-id", f"{1:032x}\n")

    def refusal(*options: str) -> str:
        argv = [*PROGRAM, "agent", "--network", "pods", *options]
        with host.popen(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            error = process.communicate(timeout=60)[1].strip()
        assert process.returncode in (1, 2) and "Traceback" not in error
        return error.splitlines()[-1]

    assert "this is not a pod: KUBERNETES_SERVICE_HOST is not set" in refusal(
        "--node", "n1", "--settings", SETTINGS
    )
    assert "--node needs --network and --settings" in refusal("--node", "n1")
    host.write("/run/wrong.json", "[]")
    assert "/run/wrong.json: is not a JSON object" in refusal(
        "--node", "n1", "--settings", "/run/wrong.json"
    )


def test_example_gives_what_the_agent_needs() -> None:
    """The objects agree with each other and with the code; no cluster takes part."""
    objects = documents()
    nodes.settings_of(settings().encode())
    rules = {
        (resource, verb)
        for rule in objects["ClusterRole"]["rules"]  # type: ignore[attr-defined]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert rules == {("nodes", "get"), ("nodes", "list"), ("nodes", "watch"), ("nodes/status", "patch")}
    pod = objects["DaemonSet"]["spec"]["template"]["spec"]  # type: ignore[index]
    agent, install = pod["containers"][0], pod["initContainers"][0]
    account = objects["ServiceAccount"]["metadata"]["name"]  # type: ignore[index]
    assert pod["serviceAccountName"] == account == objects["ClusterRoleBinding"]["subjects"][0]["name"]  # type: ignore[index]
    assert pod["hostNetwork"] and pod["priorityClassName"] == "system-node-critical"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert "conflist" not in json.dumps(install), "the network is announced last"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in (agent, install):
        for mount in container["volumeMounts"]:
            assert mount["name"] in volumes
    conflist = json.loads(objects["ConfigMap"]["data"]["pods.conflist"])  # type: ignore[index]
    assert conflist["name"] == "pods" and conflist["plugins"][0]["ipam"]["block"] == "pods"
    subnets = json.loads(settings())["subnets"]
    assert conflist["plugins"][0]["ipMasqSubnets"] == subnets
    assert conflist["plugins"][0]["mtu"] == json.loads(settings())["mtu"]
