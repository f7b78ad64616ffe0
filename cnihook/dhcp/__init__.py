# SPDX-License-Identifier: Apache-2.0
"""
DHCP for containers: a client, and the process that keeps its leases.

    message     the messages between client and server
    wire        how they are sent on a link that has no address yet
    lease       what a server granted to an attachment, on disk while it is kept
    client      requests for an address, and for more time
    keeper      the process that renews every lease until it is released
    ask         how a plugin sends requests to the keeper, and starts it

A lease must be renewed while its container runs, long after the plugin has ended.  So this is the one part
of cnihook that needs a process of its own.  It does not depend on CNI.
"""
