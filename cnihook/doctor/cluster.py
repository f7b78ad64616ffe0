# SPDX-License-Identifier: Apache-2.0
"""Check for networks of several hosts: the agent, this host's block, etcd, other hosts, the transport."""

import os
from collections.abc import Iterator

from cnihook.doctor.finding import Finding, Host
from cnihook.ipam import block


def check(_host: Host) -> Iterator[Finding]:
    if not os.path.isdir(block.FOLDER):
        return
    from cnihook.cluster import state  # few hosts are on such a network
    from cnihook.cluster.report import Report

    for network in state.networks():
        for problem in Report(network).read()["problems"]:
            yield Finding(
                "cluster",
                f"network {network}: {problem}",
                "containers may not start, or not reach those of other hosts; `cnihook man many-hosts`",
                f"cnihook cluster status {network}",
            )
