# SPDX-License-Identifier: Apache-2.0
"""
DHCP for containers: a client, and the process that keeps what it was granted.

    message     what client and server say to each other
    wire        how that gets onto a link that has no address yet
    lease       what was granted to whom, on disk for as long as it is kept
    client      asking for an address, and for more time
    keeper      the process: renews every lease until it is given back
    ask         how a plugin speaks to the keeper, and starts it

A lease must be renewed while its container runs, long after the plugin has ended, so this is the one thing
here that needs a process of its own.  It knows nothing of CNI.
"""
