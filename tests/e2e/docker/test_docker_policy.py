# SPDX-License-Identifier: Apache-2.0
"""Policies of docker's containers, which they select by docker's names."""

import json

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.policies import LEAVES, NO_BR_NETFILTER, apply, policy
from tests.support.runtimes.docker import IMAGE, Docker

RUNTIMES = {"cni": str(CHECKOUT / "scripts" / "cni-runc")}
ASKING = ("--runtime", "cni", "--network", "none", "--sysctl", "net.cnihook.networks=mynet")
PING = ("ping", "-c", "1", "-W", "1")


def test_policy_selects_containers_of_docker_by_name(docker: Docker, host: Host) -> None:
    """Before they start and while they run; docker-run has the options, too."""
    host.run("sh", "-c", NO_BR_NETFILTER)
    host.leaves(*LEAVES, "dir /etc/docker", "file /etc/docker/*")
    host.write("/etc/docker/daemon.json", json.dumps({"data-root": f"{docker.folder}/data"}))
    docker("run", "--detach", "--name", "web", *ASKING, IMAGE, "sleep", "1000")
    rules = {
        "name": "box",
        "select": {"containers": ["box"]},
        "egress": {"allow": [{"to": ["container:web"], "ports": ["icmp"]}]},
    }
    docker("run", "--detach", "--name", "box", *ASKING, IMAGE, "sleep", "1000")

    def reaches(address: str) -> bool:
        return docker("exec", "box", *PING, address, check=False).returncode == 0

    assert reaches("10.22.0.2") and reaches("10.22.0.1")
    apply(host, rules)
    assert policy(host, "list")[1].split()[-1] == "1"
    assert reaches("10.22.0.2")
    assert not reaches("10.22.0.1")
    assert policy(host, "explain", "box", "to", "web:icmp")[0].endswith("container:web on icmp")
    docker("rm", "--force", "box")
    docker("run", "--detach", "--name", "box", *ASKING, IMAGE, "sleep", "1000")
    assert policy(host, "diff") == []
    assert reaches("10.22.0.2")

    words = ("--rm", "--network", "mynet", "--egress", "none", IMAGE, *PING)
    assert docker.run(*words, "10.22.0.2", check=False).returncode != 0
    docker("rm", "--force", "web", "box")
    policy(host, "delete", "box")
    assert "policy-" not in host.nft()
