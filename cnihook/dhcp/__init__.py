# SPDX-License-Identifier: Apache-2.0
"""
DHCP for containers: a client, and the process that keeps its leases.

    message     the messages between client and server
    rawsocket   how they are sent on a link that has no address yet
    lease       what a server granted to an attachment, on disk while it is kept
    client      requests for an address, and for more time
    daemon      the keeper, which renews every lease until it is released
    rpc         where a plugin sends its requests to the keeper

A lease must be renewed while its container runs, long after the plugin has ended.  So it needs a process of
its own (cnihook/keeper).  It does not depend on CNI.
"""
