# SPDX-License-Identifier: Apache-2.0
"""Transports between the blocks of a network: vxlan, plain routes, WireGuard, or another program."""

from cnihook.cluster.kernel import TransportError
from cnihook.cluster.transport.base import Transport
from cnihook.cluster.transport.events import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.cluster.model import Settings

__all__ = ["Transport", "TransportError", "events", "of"]


def of(settings: "Settings", network: str, folder: str) -> Transport:
    """Return the transport of a network.  `folder`: this host's files of it, where a key is kept."""
    if settings.transport == "vxlan":
        from cnihook.cluster.transport.vxlan import Vxlan

        return Vxlan(settings, network, folder)
    if settings.transport == "routes":
        from cnihook.cluster.transport.routes import Routes

        return Routes(settings, network, folder)
    if settings.transport == "wireguard":
        from cnihook.cluster.transport.wireguard import WireGuard

        return WireGuard(settings, network, folder)
    return Transport(settings, network, folder)
