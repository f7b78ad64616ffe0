# SPDX-License-Identifier: Apache-2.0
"""The picture in README.md is the output of graph for this host.  RENEW=1 rewrites it."""

import os
import re

from tests.support.commands.listings import INSTALLED, attach, detach_all
from tests.support.host.host import Host, Outside
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import bridge, configure

PICTURE = CHECKOUT / "cnihook" / "pages" / "graph.svg"


def draw(host: Host) -> str:
    """Draw a host with a fixed name; its containers have no age."""
    script = f"hostname example && exec {INSTALLED} graph --format svg"
    return host.run("unshare", "--uts", "sh", "-c", script).stdout


def settled(svg: str) -> str:
    """Remove what changes with each run: process IDs and ages, in the tooltips."""
    return re.sub(r"\bpid \d+|\b\d+s\b", "", svg)


def test_picture_is_what_graph_draws(host: Host) -> None:
    """The host has three networks and eight containers: one on the host's own LAN, one crashed."""
    host.outside()
    front = bridge("front", "10.22.0.0/24", ipMasq=True)
    front["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    back = bridge("back", "10.23.0.0/24", isGateway=False)
    lan = {
        "cniVersion": "1.0.0",
        "name": "lan",
        "plugins": [
            {
                "type": "macvlan",
                "master": "up0",
                "ipam": {
                    "type": "host-local",
                    "ranges": [
                        [
                            {
                                "subnet": "198.51.100.0/24",
                                "rangeStart": "198.51.100.50",
                                "gateway": Outside.ADDRESS,
                            }
                        ]
                    ],
                },
            }
        ],
    }
    configure(host, front, back, lan)
    attach(host, "proxy", "front", "back", port=443)
    attach(host, "shop", "front", "back", port=8080)
    attach(host, "blog", "front", "back", port=8081)
    attach(host, "database", "back")
    attach(host, "cache", "back")
    attach(host, "printer", "lan")
    attach(host, "camera", "lan", "back")
    attach(host, "nightly-backup", "back").destroy()

    drawn = draw(host)

    detach_all(host)
    if os.environ.get("RENEW"):
        PICTURE.write_text(drawn)
    assert settled(drawn) == settled(PICTURE.read_text())
    assert Outside.ADDRESS in drawn
