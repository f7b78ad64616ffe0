# SPDX-License-Identifier: Apache-2.0
"""
Multicast DNS (RFC 6762) between the networks of containers and the LAN of the host.

    listing     what a container requests, a file in /run/cnihook/mdns/attachments
    service     begin and end to forward for a container; what code of containers calls
    daemon      the process that forwards, a keeper (cnihook/keeper)
    membership  the socket on one interface for one IP version
    one_shot    queries of programs that are not in the group
    message     the check of a message, and the form in which it is sent on

Multicast DNS does not pass a router, and the host is one for its containers.  So a message is sent again:
one of a container to the interfaces of the LAN, one of the LAN to the bridges, or own links, of the
containers that request it.  No message passes from one bridge to another, nor between interfaces of the LAN.
"""
