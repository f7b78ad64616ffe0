# SPDX-License-Identifier: Apache-2.0
"""
The annotation k8s.v1.cni.cncf.io/networks of the Kubernetes Network Plumbing Working Group's standard for
network attachments (4.1, "Network attachment selection annotation"): a short form, and a JSON list.

A NetworkAttachmentDefinition of the standard is a network with this name here.  Its namespace is ignored.
"""

from cnihook.fast import fastjson
from cnihook.ipam import leases
from cnihook.request import values
from cnihook.request.request import NetworkRequest, PortRequest
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError
from cnihook.types.names import check_ifname, check_network_name, shown


def parse(text: str) -> "list[NetworkRequest]":
    """Return the networks that the annotation requests.  Raises CniError, with the annotation's name."""
    try:
        if text.lstrip().startswith("["):
            return _parse_json(text)
        return [_parse_short(part.strip()) for part in text.split(",") if part.strip()]
    except CniError as error:
        raise error.wrapped(f"annotation {values.NPWG}={shown(text)}") from None


def _parse_short(text: str) -> NetworkRequest:
    """Parse [NAMESPACE/]NAME[@IFNAME]."""
    name, at, ifname = text.rpartition("/")[2].partition("@")
    check_network_name(name)
    if at:
        check_ifname(ifname)
    return NetworkRequest(name, ifname)


def _parse_json(text: str) -> "list[NetworkRequest]":
    try:
        raw = fastjson.loads(text)
    except ValueError as error:
        raise values.refuse("it is not JSON", str(error)) from None
    return [_parse_item(item) for item in NetConf({"networks": raw}).objects("networks")]


def _parse_item(item: NetConf) -> NetworkRequest:
    name = item.string("name")
    check_network_name(name)
    requested = NetworkRequest(name, item.string("interface"))
    if requested.ifname:
        check_ifname(requested.ifname)
    requested.ips = [values.parse_ip(ip) for ip in item.strings("ips")]
    if mac := item.string("mac"):
        requested.mac = values.parse_mac(mac)
    for mapping in item.objects("portMappings"):
        outside = mapping.integer("hostPort", default=0, low=1, high=65535)
        inside = mapping.integer("containerPort", default=outside, low=1, high=65535)
        protocol = mapping.string("protocol", default="tcp").lower()
        requested.ports.append(PortRequest(inside, outside, outside, protocol, mapping.string("hostIP")))
    bandwidth = item.object("bandwidth")
    for key in ("ingressRate", "ingressBurst", "egressRate", "egressBurst"):
        if bandwidth.has(key):
            requested.bandwidth[key] = bandwidth.integer(key, default=0, low=0, high=1 << 62)
    for gateway in item.strings("default-route"):
        via = values.parse_server(gateway)
        everywhere = "::/0" if ":" in via else "0.0.0.0/0"
        requested.routes.append(values.parse_route(f"{everywhere}={via}"))
    for key, value in item.object("cni-args").raw.items():
        if isinstance(value, str):
            if ";" in key + value or "=" in key:
                raise values.refuse(f"cni-args {shown(f'{key}={value}')}", "it holds more than one pair")
            if key == leases.STICKY:
                hint = "the annotation cnihook.sticky has the same effect"
                raise values.refuse(f"cni-args {key}", "it is only for cnihook itself", hint)
            requested.cni_args[key] = value
    return requested
