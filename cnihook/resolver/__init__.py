# SPDX-License-Identifier: Apache-2.0
"""
Names in policies: a container may look up the listed names, and connect to the addresses that they have.

    listing     what a container may look up, a file in /run/cnihook/resolver/containers
    service     begin and end to resolve the names of a container; what code of policies calls
    redirect    nftables: the container's packets to port 53 of its gateway arrive at the resolver's port
    daemon      the process that answers, a keeper (cnihook/keeper)
    lookup      the decision about one question, and its answer
    message     DNS messages
    upstream    the same question to the servers of the host
    openings    addresses in the nftables sets of a policy, before the answer with them is sent
    denials     the names that were refused, a file in /run/cnihook/resolver/denied

The container's resolv.conf names its gateway as its server, so it needs no other server.
"""
