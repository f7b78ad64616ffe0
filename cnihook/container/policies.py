# SPDX-License-Identifier: Apache-2.0
"""The part of a container's record that is for policies: labels, requested lists, name servers."""

import os

from cnihook.container.engine import POLICIES
from cnihook.fast.address import is_address
from cnihook.request.request import ContainerRequest
from cnihook.request.resolve import ResolvedNetwork
from cnihook.types.config import LenientConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def request_of(request: ContainerRequest, chosen: "list[ResolvedNetwork]") -> "dict[str, Any] | None":
    """Return that part of a record; None on a host without policies, for a container that requests none."""
    fields = {
        "labels": request.labels,
        "egress": request.egress,
        "ingress": request.ingress,
        "policies": request.policies,
        "weak": request.weak_policy,
    }
    present: dict[str, Any] = {key: value for key, value in fields.items() if value}
    if request.egress or request.policies or os.path.exists(POLICIES):
        own = _servers(request, chosen)
        if own:
            present["servers"] = own  # else the host's, which may change
        present["dns"] = own or _host_servers()
    return present or None


def _servers(request: ContainerRequest, chosen: "list[ResolvedNetwork]") -> "list[str]":
    """Return the addresses of the container's own name servers; none if it uses those of the host."""
    from cnihook.names import resolv_conf  # few containers have a policy

    servers = list(request.dns.nameservers)
    for served in () if servers else chosen:
        for plugin in served.network.plugins:
            conf = LenientConf(plugin)
            servers += conf.object("dns").strings("nameservers")
            if path := conf.object("ipam").string("resolvConf"):
                servers += resolv_conf.servers_of_file(path)
    return list(filter(is_address, dict.fromkeys(servers)))


def _host_servers() -> "list[str]":
    from cnihook.names import resolv_conf

    return list(filter(is_address, resolv_conf.host_servers()))
