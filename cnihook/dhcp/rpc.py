# SPDX-License-Identifier: Apache-2.0
"""Requests of the plugin dhcp to the keeper of its leases."""

from cnihook.keeper.client import Keeper

SOCKET = "/run/cni/dhcp.sock"

# 50 s for an answer: more than the keeper gives a server, less than a hook has.
KEEPER = Keeper("DHCP keeper", "dhcp-keeper", 50.0)
